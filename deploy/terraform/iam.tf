# One user for what knows only users: Streaming's Kafka listener, S3 access, and pulling images. What can be had by
# workload identity (Notifications, Monitoring) is not this user's.

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

# The password of SASL/PLAIN.
resource "oci_identity_auth_token" "this" {
  provider    = oci.home
  user_id     = oci_identity_user.this.id
  description = var.name

  # A user may have two, so a new one can be there before the old one goes.
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
  description    = "What Tollgate's user may do"

  statements = [
    # Streams are made here, so that the services need not be able to make or delete them.
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
  description    = "What Tollgate's pods may do by their service accounts"

  statements = concat(
    ["Allow any-user to use ons-topics ${local.in_compartment} where all {${local.workload["notifier"]}}"],
    [for who in values(local.workload) :
      "Allow any-user to use metrics ${local.in_compartment} where all {${who}, target.metrics.namespace = 'fraud_detection'}"
    ],
  )
}
