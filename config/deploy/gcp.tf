# upbeat cloud gcp --as terraform --config config/examples/gcp-load-balancer.yaml
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
  source_ranges = ["35.191.0.0/16", "130.211.0.0/22"]

  allow {
    protocol = "tcp"
    ports    = ["4317", "9095"]
  }
}

# otlp (port 4317). The check goes to Upbeat, never to a distributor: Google takes
# UNIMPLEMENTED, which an OpenTelemetry receiver answers, for health. An instance is out after
# interval × unhealthy threshold: drain.delay (20s) must not be shorter.
resource "google_compute_health_check" "upbeat_otlp" {
  name                = "upbeat-otlp"
  check_interval_sec  = 5
  timeout_sec         = 2
  healthy_threshold   = 2
  unhealthy_threshold = 2

  grpc_health_check {
    port_specification = "USE_FIXED_PORT"
    port               = 4317
    grpc_service_name  = "otlp"
  }
}

# H2C is HTTP/2 in cleartext; HTTP2 would be HTTP/2 over TLS, and HTTP carries no gRPC.
resource "google_compute_backend_service" "upbeat_otlp" {
  name                            = "upbeat-otlp"
  load_balancing_scheme           = "EXTERNAL_MANAGED"
  protocol                        = "H2C"
  port_name                       = "otlp"
  timeout_sec                     = 30
  connection_draining_timeout_sec = 30
  health_checks                   = [google_compute_health_check.upbeat_otlp.id]

  # backend { group = … }
}

# tempo (port 9095). The check goes to Upbeat, never to a distributor: Google takes
# UNIMPLEMENTED, which an OpenTelemetry receiver answers, for health. An instance is out after
# interval × unhealthy threshold: drain.delay (20s) must not be shorter.
resource "google_compute_health_check" "upbeat_tempo" {
  name                = "upbeat-tempo"
  check_interval_sec  = 5
  timeout_sec         = 2
  healthy_threshold   = 2
  unhealthy_threshold = 2

  grpc_health_check {
    port_specification = "USE_FIXED_PORT"
    port               = 9095
    grpc_service_name  = "tempo"
  }
}

# H2C is HTTP/2 in cleartext; HTTP2 would be HTTP/2 over TLS, and HTTP carries no gRPC.
resource "google_compute_backend_service" "upbeat_tempo" {
  name                            = "upbeat-tempo"
  load_balancing_scheme           = "EXTERNAL_MANAGED"
  protocol                        = "H2C"
  port_name                       = "tempo"
  timeout_sec                     = 30
  connection_draining_timeout_sec = 30
  health_checks                   = [google_compute_health_check.upbeat_tempo.id]

  # backend { group = … }
}
