# A push to a repository that does not exist would create it in the root compartment, or be refused.

locals {
  images = ["ingest", "scorer", "persistence", "notifier", "tollgate"]
}

resource "oci_artifacts_container_repository" "this" {
  for_each = toset(local.images)

  compartment_id = var.compartment_id
  display_name   = "${var.name}/${each.key}"
  is_public      = false
}
