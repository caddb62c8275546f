
# @listener@ (port @port@). The check goes to Upbeat, never to a distributor: Google takes
# UNIMPLEMENTED, which an OpenTelemetry receiver answers, for health. An instance is out after
# interval × unhealthy threshold: drain.delay (@drain_delay@) must not be shorter.
resource "google_compute_health_check" "upbeat_@id@" {
  name                = "upbeat-@name@"
  check_interval_sec  = @interval@
  timeout_sec         = @timeout@
  healthy_threshold   = @healthy@
  unhealthy_threshold = @unhealthy@

  grpc_health_check {
    port_specification = "USE_FIXED_PORT"
    port               = @check_port@
@service@  }
}

# H2C is HTTP/2 in cleartext; HTTP2 would be HTTP/2 over TLS, and HTTP carries no gRPC.
resource "google_compute_backend_service" "upbeat_@id@" {
  name                            = "upbeat-@name@"
  load_balancing_scheme           = "EXTERNAL_MANAGED"
  protocol                        = "@protocol@"
  port_name                       = "@name@"
  timeout_sec                     = @backend_timeout@
  connection_draining_timeout_sec = @draining@
  health_checks                   = [google_compute_health_check.upbeat_@id@.id]

  # backend { group = … }
}
