# Google Cloud: firewall rule, health checks and backend services. Backends (instance groups or
# network endpoint groups), URL map and forwarding rule are yours.

variable "upbeat_network" {
  type    = string
  default = "default"
}

# Health checks come from these ranges, and so does the traffic of global balancers. That of
# regional ones (Envoy) comes from the proxy-only subnet, which wants a rule of its own.
resource "google_compute_firewall" "upbeat_health" {
  name          = "upbeat-health"
  network       = var.upbeat_network
  direction     = "INGRESS"
  source_ranges = [@ranges@]

  allow {
    protocol = "tcp"
    ports    = [@ports@]
  }
}
