resource "random_password" "postgres" {
  length      = 32
  min_upper   = 2
  min_lower   = 2
  min_numeric = 2
  min_special = 2
  # These characters have no special meaning in a URL.
  override_special = "-_"
}

data "oci_core_subnet" "database" {
  subnet_id = var.database_subnet_id

  lifecycle {
    postcondition {
      condition     = self.prohibit_public_ip_on_vnic
      error_message = "database_subnet_id: must be a private subnet; this one may have public addresses."
    }
  }
}

resource "oci_core_network_security_group" "postgres" {
  compartment_id = var.compartment_id
  vcn_id         = data.oci_core_subnet.database.vcn_id
  display_name   = "${var.name}-postgres"
}

resource "oci_core_network_security_group_security_rule" "postgres" {
  for_each = data.oci_core_subnet.clients

  network_security_group_id = oci_core_network_security_group.postgres.id
  description               = "PostgreSQL, from ${each.value.display_name}"
  direction                 = "INGRESS"
  protocol                  = "6" # TCP
  source_type               = "CIDR_BLOCK"
  source                    = each.value.cidr_block

  tcp_options {
    destination_port_range {
      min = 5432
      max = 5432
    }
  }
}

resource "oci_psql_db_system" "this" {
  compartment_id = var.compartment_id
  display_name   = var.name
  db_version     = var.postgres.version
  system_type    = "OCI_OPTIMIZED_STORAGE"

  shape                       = var.postgres.shape
  instance_count              = var.postgres.instances
  instance_ocpu_count         = var.postgres.ocpus
  instance_memory_size_in_gbs = var.postgres.memory_gb

  network_details {
    subnet_id = var.database_subnet_id
    nsg_ids   = [oci_core_network_security_group.postgres.id]
  }

  storage_details {
    system_type           = "OCI_OPTIMIZED_STORAGE"
    is_regionally_durable = var.postgres.availability_domain == null
    availability_domain   = var.postgres.availability_domain
  }

  credentials {
    username = var.postgres.admin
    password_details {
      password_type  = "VAULT_SECRET"
      secret_id      = oci_vault_secret.this["postgres-password"].id
      secret_version = oci_vault_secret.this["postgres-password"].current_version_number
    }
  }

  management_policy {
    backup_policy {
      kind           = "DAILY"
      backup_start   = "02:00"
      retention_days = 7
    }
  }

  lifecycle {
    prevent_destroy = true
    # A new version of the secret is a new password, to be set with `reset-master-user-password`; it must not replace the database.
    ignore_changes = [credentials]
  }
}

data "oci_psql_db_system_connection_detail" "this" {
  db_system_id = oci_psql_db_system.this.id
}

locals {
  postgres_endpoint = data.oci_psql_db_system_connection_detail.this.primary_db_endpoint[0]
  postgres_ca       = data.oci_psql_db_system_connection_detail.this.ca_certificate

  # The service uses a private CA: the manifests mount its certificate at this path.
  postgres_url = format(
    "postgres://%s:%s@%s:%s/%s?sslmode=verify-full&sslrootcert=/etc/tollgate/postgres/ca.pem",
    var.postgres.admin,
    urlencode(random_password.postgres.result),
    local.postgres_endpoint.fqdn,
    local.postgres_endpoint.port,
    var.postgres.database,
  )
}
