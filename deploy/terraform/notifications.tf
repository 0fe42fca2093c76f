# One topic for outgoing alerts and another for events about new objects, so that subscribers of alerts do not receive these.

resource "oci_ons_notification_topic" "alerts" {
  compartment_id = var.compartment_id
  name           = "${var.name}-alerts"
  description    = "Transactions that Tollgate blocks or sends to review"
}

resource "oci_ons_notification_topic" "imports" {
  compartment_id = var.compartment_id
  name           = "${var.name}-imports"
  description    = "New objects for Tollgate to import"
}

resource "oci_events_rule" "imports" {
  compartment_id = var.compartment_id
  display_name   = "${var.name}-imports"
  description    = "Notifies Tollgate of new objects in the import bucket"
  is_enabled     = true

  condition = jsonencode({
    eventType = ["com.oraclecloud.objectstorage.createobject"]
    data      = { additionalDetails = { bucketName = [oci_objectstorage_bucket.imports.name] } }
  })

  actions {
    action {
      action_type = "ONS"
      is_enabled  = true
      topic_id    = oci_ons_notification_topic.imports.topic_id
    }
  }
}

resource "oci_ons_subscription" "imports" {
  count = nonsensitive(var.events_url != null) ? 1 : 0

  compartment_id = var.compartment_id
  topic_id       = oci_ons_notification_topic.imports.topic_id
  protocol       = "CUSTOM_HTTPS"
  endpoint       = var.events_url
}
