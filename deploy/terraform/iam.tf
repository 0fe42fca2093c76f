# One user for people and for what authenticates only users: `tollgate dlq` and `tollgate imports` on Streaming's Kafka
# endpoint, the S3 API, and image pulls. Services that support workload identity (Notifications, Monitoring) are not granted
# to it. Each service has a user of its own for Streaming: below.

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

# A user for each service, and one with which KEDA reads the consumer lag. Who reads and writes which stream is that of
# crates/types/src/topics.rs (TopicKind); a test of crates/log compares them.
locals {
  streaming = {
    ingest      = { writes = ["transactions", "imports", "transactions.dlq"], reads = ["replies", "imports"] }
    scorer      = { writes = ["transactions", "decisions", "alerts", "replies", "transactions.dlq"], reads = ["transactions"] }
    persistence = { writes = ["decisions.dlq"], reads = ["decisions"] }
    notifier    = { writes = ["alerts.dlq"], reads = ["alerts"] }
    operator    = { writes = ["transactions", "decisions", "alerts", "transactions.dlq", "decisions.dlq", "alerts.dlq"], reads = ["imports", "transactions.dlq", "decisions.dlq", "alerts.dlq"] }
    lag         = { writes = [], reads = ["transactions", "decisions", "alerts"] }
  }
  users  = setsubtract(keys(local.streaming), ["operator"])
  groups = merge({ for user in local.users : user => oci_identity_group.service[user].id }, { operator = oci_identity_group.this.id })
  in_streams = {
    for user, may in local.streaming : user => {
      for verb, topics in may : verb => join(", ", [for topic in topics : "target.stream.id = '${oci_streaming_stream.this[topic].id}'"])
    }
  }
}

resource "oci_identity_user" "service" {
  for_each = local.users

  provider       = oci.home
  compartment_id = var.tenancy_id
  name           = "${var.name}-${each.key}"
  description    = "Tollgate: Streaming, as ${each.key}"
  email          = var.user_email == null ? null : replace(var.user_email, "@", "+${each.key}@")
}

resource "oci_identity_group" "service" {
  for_each = local.users

  provider       = oci.home
  compartment_id = var.tenancy_id
  name           = "${var.name}-${each.key}"
  description    = "Tollgate: Streaming, as ${each.key}"
}

resource "oci_identity_user_group_membership" "service" {
  for_each = local.users

  provider = oci.home
  user_id  = oci_identity_user.service[each.key].id
  group_id = oci_identity_group.service[each.key].id
}

resource "oci_identity_auth_token" "service" {
  for_each = local.users

  provider    = oci.home
  user_id     = oci_identity_user.service[each.key].id
  description = "${var.name}-${each.key}"

  lifecycle {
    create_before_destroy = true
  }
}

resource "oci_identity_policy" "streaming" {
  for_each = local.streaming

  provider       = oci.home
  compartment_id = var.compartment_id
  name           = "${var.name}-streaming-${each.key}"
  description    = "What ${each.key} may do with the streams"

  # Streams are created here, so nobody needs permission to create or delete them. `use streams` would include producing
  # and consuming.
  statements = concat(
    ["Allow group id ${local.groups[each.key]} to read streams ${local.in_compartment}"],
    [for verb, resource in { reads = "stream-pull", writes = "stream-push" } :
      "Allow group id ${local.groups[each.key]} to use ${resource} ${local.in_compartment} where any {${local.in_streams[each.key][verb]}}"
      if length(each.value[verb]) > 0
    ],
  )
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
