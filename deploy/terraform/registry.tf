# A push to a repository that is not there would make it in the root compartment, or be refused.

locals {
  images = ["ingest", "scorer", "persistence", "notifier", "tollgate"]
}

resource "oci_artifacts_container_repository" "this" {
  for_each = toset(local.images)

  compartment_id = var.compartment_id
  display_name   = "${var.name}/${each.key}"
  is_public      = false
}
