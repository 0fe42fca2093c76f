variable "tenancy_id" {
  description = "OCID of the tenancy."
  type        = string

  validation {
    condition     = startswith(var.tenancy_id, "ocid1.tenancy.")
    error_message = "Must be the OCID of a tenancy: ocid1.tenancy.…"
  }
}

variable "compartment_id" {
  description = "OCID of the compartment for all resources. One installation per compartment: Streaming does not distinguish streams of the same name in a compartment."
  type        = string

  validation {
    condition     = startswith(var.compartment_id, "ocid1.compartment.")
    error_message = "Must be the OCID of a compartment: ocid1.compartment.…"
  }
}

variable "region" {
  description = "Region of all resources except IAM, such as eu-frankfurt-1."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2,}(-[a-z]+)+-[0-9]+$", var.region))
    error_message = "Must be a region's name such as eu-frankfurt-1, not its key."
  }
}

variable "cluster_id" {
  description = "OCID of the OKE cluster. It must be an enhanced one."
  type        = string

  validation {
    condition     = startswith(var.cluster_id, "ocid1.cluster.")
    error_message = "Must be the OCID of an OKE cluster: ocid1.cluster.…"
  }
}

variable "client_subnet_ids" {
  description = "OCIDs of the subnets from which pods reach the database and a private stream pool: those of the pods with VCN-native networking, those of the nodes with flannel."
  type        = set(string)

  validation {
    condition     = length(var.client_subnet_ids) > 0 && alltrue([for id in var.client_subnet_ids : startswith(id, "ocid1.subnet.")])
    error_message = "Must be at least one OCID of a subnet: ocid1.subnet.…"
  }
}

variable "database_subnet_id" {
  description = "OCID of the private subnet of the database."
  type        = string

  validation {
    condition     = startswith(var.database_subnet_id, "ocid1.subnet.")
    error_message = "Must be the OCID of a subnet: ocid1.subnet.…"
  }
}

variable "streaming_subnet_id" {
  description = "OCID of the subnet of the stream pool's private endpoint. Null: the pool's endpoint is public. Cannot be changed later."
  type        = string
  default     = null

  validation {
    condition     = startswith(coalesce(var.streaming_subnet_id, "ocid1.subnet."), "ocid1.subnet.")
    error_message = "Must be the OCID of a subnet, or null."
  }
}

variable "name" {
  description = "Prefix of the names of resources. Names of buckets, users, groups, policies and topics are unique in the tenancy."
  type        = string
  default     = "tollgate"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "Must be 2 to 31 small letters, digits and hyphens, beginning with a letter."
  }
}

variable "kubernetes_namespace" {
  description = "Namespace of Tollgate's pods, for workload identity. The manifests use `tollgate`."
  type        = string
  default     = "tollgate"
}

variable "partitions" {
  description = "Partitions of each stream; `dead_letters` applies to each of the three dead-letter streams. Cannot be changed later."
  type = object({
    transactions = optional(number, 12)
    decisions    = optional(number, 12)
    alerts       = optional(number, 6)
    replies      = optional(number, 4)
    imports      = optional(number, 2)
    dead_letters = optional(number, 1)
  })
  default = {}

  validation {
    condition     = alltrue([for count in values(var.partitions) : count >= 1 && floor(count) == count])
    error_message = "Each must be a whole number from 1 up."
  }
}

variable "identity_domain" {
  description = "Identity domain in the logins of Streaming and of the registry (tenancy/DOMAIN/user/…). Null: logins without one. The user is created in the default domain."
  type        = string
  default     = null

  validation {
    condition     = !strcontains(coalesce(var.identity_domain, "none"), "/")
    error_message = "Must be the name of the domain alone, such as Default, without a slash."
  }
}

variable "user_email" {
  description = "E-mail address of the IAM user, for tenancies whose domain requires one. It must be unique."
  type        = string
  default     = null
}

variable "events_url" {
  description = "URL at which Tollgate receives events about new objects: https://NAME:KEY@HOST/v1/events, where KEY is one of ingest's API keys. Null: no subscription. Tollgate must be running when this is set, since it confirms the subscription."
  type        = string
  default     = null
  sensitive   = true

  validation {
    condition     = var.events_url == null || can(regex("^https://[^/]+.*/v1/events$", var.events_url)) && length(coalesce(var.events_url, " ")) <= 512
    error_message = "Must be https://NAME:KEY@HOST/v1/events, 512 characters at most."
  }
}

variable "vault" {
  description = "A vault, and a symmetric key in it, for the secrets. Null: both are created."
  type = object({
    vault_id = string
    key_id   = string
  })
  default = null

  validation {
    condition     = var.vault == null || try(startswith(var.vault.vault_id, "ocid1.vault.") && startswith(var.vault.key_id, "ocid1.key."), false)
    error_message = "Must have vault_id = ocid1.vault.… and key_id = ocid1.key.…"
  }
}

variable "postgres" {
  description = "The database system. `database` is the database that Tollgate uses; the service creates one, `postgres`. `availability_domain` set: storage in that one alone, cheaper; null: in the whole region. Of these only `shape`, `ocpus`, `memory_gb` and `database` can be changed later."
  type = object({
    version             = optional(string, "16")
    shape               = optional(string, "PostgreSQL.VM.Standard.E5.Flex")
    ocpus               = optional(number, 2)
    memory_gb           = optional(number, 32)
    instances           = optional(number, 1)
    availability_domain = optional(string)
    database            = optional(string, "postgres")
    admin               = optional(string, "tollgate")
  })
  default = {}

  validation {
    condition     = can(regex("^[0-9]+$", var.postgres.version)) && var.postgres.ocpus >= 1 && var.postgres.memory_gb >= 1 && var.postgres.instances >= 1
    error_message = "`version` must be a major version such as 16, and each number at least 1."
  }
  validation {
    condition     = can(regex("^[a-z][a-z0-9_]{0,62}$", var.postgres.admin)) && can(regex("^[a-z][a-z0-9_]{0,62}$", var.postgres.database)) && !contains(["postgres", "admin", "root"], var.postgres.admin)
    error_message = "`admin` and `database` must be small letters, digits and _, and `admin` none that PostgreSQL or the service has itself."
  }
}

variable "apm_free_tier" {
  description = "Whether the APM domain is the tenancy's Always Free one. Cannot be changed later."
  type        = bool
  default     = false
}

variable "log_key_ids" {
  description = "Ids of the keys with which services sign what they write to each other. The first signs, all are accepted. To rotate: put a new id first and deploy; remove the old one when the records that it signed are no longer kept."
  type        = list(string)
  default     = ["1"]

  validation {
    condition     = length(var.log_key_ids) > 0 && alltrue([for id in var.log_key_ids : can(regex("^[A-Za-z0-9_-]{1,32}$", id))])
    error_message = "At least one id, each of 1 to 32 letters, digits, - and _."
  }
}
