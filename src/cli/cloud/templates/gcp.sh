
# @listener@ (port @port@). The check goes to Upbeat, never to a distributor: Google takes
# UNIMPLEMENTED, which an OpenTelemetry receiver answers, for health. An instance is out after
# interval × unhealthy threshold: drain.delay (@drain_delay@) must not be shorter.
gcloud compute health-checks create grpc upbeat-@name@ \
  --global \
  --port=@check_port@ \
@service@  --check-interval=@interval@s \
  --timeout=@timeout@s \
  --healthy-threshold=@healthy@ \
  --unhealthy-threshold=@unhealthy@

# H2C is HTTP/2 in cleartext; HTTP2 would be HTTP/2 over TLS, and HTTP carries no gRPC. Instance
# groups name the port: gcloud compute instance-groups set-named-ports … --named-ports=@name@:@port@
gcloud compute backend-services create upbeat-@name@ \
  --global \
  --load-balancing-scheme=EXTERNAL_MANAGED \
  --protocol=@protocol@ \
  --port-name=@name@ \
  --health-checks=upbeat-@name@ \
  --global-health-checks \
  --timeout=@backend_timeout@s \
  --connection-draining-timeout=@draining@s
