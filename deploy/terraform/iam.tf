# One user, for services that authenticate only users: Streaming's Kafka endpoint, the S3 API, and image pulls. Services
# that support workload identity (Notifications, Monitoring) are not granted to it.

resource "oci_identity_user" "this" {
  provider       = oci.home
  compartment_id = var.tenancy_id
  name           = var.name
  description    = "Tollgate: Streaming, its buckets and its images"
  email          = var.user_email
}

resource "oci_identity_group" "this" {
  provider       = oci.home
  compartment_id = var.tenancy_id
  name           = var.name
  description    = "Tollgate: Streaming, its buckets and its images"
}

resource "oci_identity_user_group_membership" "this" {
  provider = oci.home
  user_id  = oci_identity_user.this.id
  group_id = oci_identity_group.this.id
}

# The password for SASL/PLAIN.
resource "oci_identity_auth_token" "this" {
  provider    = oci.home
  user_id     = oci_identity_user.this.id
  description = var.name

  # A user may have two, so a new one can be created before the old one is deleted.
  lifecycle {
    create_before_destroy = true
  }
}

# Its id is the access key.
resource "oci_identity_customer_secret_key" "this" {
  provider     = oci.home
  user_id      = oci_identity_user.this.id
  display_name = var.name

  lifecycle {
    create_before_destroy = true
  }
}

locals {
  in_compartment = "in compartment id ${var.compartment_id}"
  the_group      = "Allow group id ${oci_identity_group.this.id} to"
  workload = {
    for account in ["ingest", "scorer", "persistence", "notifier"] : account => join(", ", [
      "request.principal.type = 'workload'",
      "request.principal.namespace = '${var.kubernetes_namespace}'",
      "request.principal.service_account = '${account}'",
      "request.principal.cluster_id = '${var.cluster_id}'",
    ])
  }
}

resource "oci_identity_policy" "user" {
  provider       = oci.home
  compartment_id = var.compartment_id
  name           = "${var.name}-user"
  description    = "Permissions of Tollgate's user"

  statements = [
    # Streams are created here, so the services need no permission to create or delete them.
    "${local.the_group} use streams ${local.in_compartment}",
    "${local.the_group} use stream-pull ${local.in_compartment}",
    "${local.the_group} use stream-push ${local.in_compartment}",
    "${local.the_group} read buckets ${local.in_compartment}",
    "${local.the_group} read objects ${local.in_compartment} where target.bucket.name = '${oci_objectstorage_bucket.imports.name}'",
    "${local.the_group} manage objects ${local.in_compartment} where target.bucket.name = '${oci_objectstorage_bucket.snapshots.name}'",
    "${local.the_group} read repos ${local.in_compartment}",
  ]
}

resource "oci_identity_policy" "workload" {
  provider       = oci.home
  compartment_id = var.compartment_id
  name           = "${var.name}-workload"
  description    = "Permissions of the service accounts of Tollgate's pods"

  statements = concat(
    ["Allow any-user to use ons-topics ${local.in_compartment} where all {${local.workload["notifier"]}}"],
    [for who in values(local.workload) :
      "Allow any-user to use metrics ${local.in_compartment} where all {${who}, target.metrics.namespace = 'fraud_detection'}"
    ],
  )
}
