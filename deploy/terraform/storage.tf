resource "oci_objectstorage_bucket" "imports" {
  compartment_id        = var.compartment_id
  namespace             = local.bucket_namespace
  name                  = "${var.name}-imports"
  access_type           = "NoPublicAccess"
  object_events_enabled = true
}

# The scorer keeps the last two snapshots of a partition and deletes older ones itself.
resource "oci_objectstorage_bucket" "snapshots" {
  compartment_id = var.compartment_id
  namespace      = local.bucket_namespace
  name           = "${var.name}-snapshots"
  access_type    = "NoPublicAccess"
}
