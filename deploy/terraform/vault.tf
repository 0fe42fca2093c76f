resource "oci_kms_vault" "this" {
  count          = var.vault == null ? 1 : 0
  compartment_id = var.compartment_id
  display_name   = var.name
  vault_type     = "DEFAULT"
}

resource "oci_kms_key" "this" {
  count               = var.vault == null ? 1 : 0
  compartment_id      = var.compartment_id
  display_name        = var.name
  management_endpoint = oci_kms_vault.this[0].management_endpoint
  protection_mode     = "SOFTWARE"

  key_shape {
    algorithm = "AES"
    length    = 32
  }
}

locals {
  vault_id = var.vault == null ? oci_kms_vault.this[0].id : var.vault.vault_id
  key_id   = var.vault == null ? oci_kms_key.this[0].id : var.vault.key_id

  # Auth token and secret key are returned only when they are created: without a copy they could only be replaced.
  secrets = merge({ for user in local.users : "${user}-auth-token" => oci_identity_auth_token.service[user].token }, {
    postgres-password = random_password.postgres.result
    auth-token        = oci_identity_auth_token.this.token
    s3-secret-key     = oci_identity_customer_secret_key.this.key
    apm-data-key      = local.apm_data_key
    log-keys          = local.log_keys
  })

  # kafka.authentication.keys: the first signs, all are accepted.
  log_keys = jsonencode([for id in var.log_key_ids : { id = id, secret = random_password.log[id].result }])
}

# With these, services sign what they write to each other.
resource "random_password" "log" {
  for_each = toset(var.log_key_ids)

  length  = 48
  special = false
}

resource "oci_vault_secret" "this" {
  for_each = toset(["postgres-password", "auth-token", "s3-secret-key", "apm-data-key", "log-keys", "ingest-auth-token", "scorer-auth-token", "persistence-auth-token", "notifier-auth-token", "lag-auth-token"])

  compartment_id = var.compartment_id
  vault_id       = local.vault_id
  key_id         = local.key_id
  secret_name    = "${var.name}-${each.key}"

  secret_content {
    content_type = "BASE64"
    content      = base64encode(local.secrets[each.key])
  }
}
