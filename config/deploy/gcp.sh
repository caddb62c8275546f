# upbeat cloud gcp --as shell --config config/examples/gcp-load-balancer.yaml
# Google Cloud: firewall rule, health checks and backend services. Instance groups or network
# endpoint groups, URL map and forwarding rule are yours.
set -eu
: "${NETWORK:=default}"

# Health checks come from these ranges, and so does the traffic of global balancers. That of
# regional ones (Envoy) comes from the proxy-only subnet, which wants a rule of its own.
gcloud compute firewall-rules create upbeat-health \
  --network="$NETWORK" \
  --direction=INGRESS \
  --action=ALLOW \
  --source-ranges=35.191.0.0/16,130.211.0.0/22 \
  --rules=tcp:4317,tcp:9095

# otlp (port 4317). The check goes to Upbeat, never to a distributor: Google takes
# UNIMPLEMENTED, which an OpenTelemetry receiver answers, for health. An instance is out after
# interval × unhealthy threshold: drain.delay (20s) must not be shorter.
gcloud compute health-checks create grpc upbeat-otlp \
  --global \
  --port=4317 \
  --grpc-service-name='otlp' \
  --check-interval=5s \
  --timeout=2s \
  --healthy-threshold=2 \
  --unhealthy-threshold=2

# H2C is HTTP/2 in cleartext; HTTP2 would be HTTP/2 over TLS, and HTTP carries no gRPC. Instance
# groups name the port: gcloud compute instance-groups set-named-ports … --named-ports=otlp:4317
gcloud compute backend-services create upbeat-otlp \
  --global \
  --load-balancing-scheme=EXTERNAL_MANAGED \
  --protocol=H2C \
  --port-name=otlp \
  --health-checks=upbeat-otlp \
  --global-health-checks \
  --timeout=30s \
  --connection-draining-timeout=30s

# tempo (port 9095). The check goes to Upbeat, never to a distributor: Google takes
# UNIMPLEMENTED, which an OpenTelemetry receiver answers, for health. An instance is out after
# interval × unhealthy threshold: drain.delay (20s) must not be shorter.
gcloud compute health-checks create grpc upbeat-tempo \
  --global \
  --port=9095 \
  --grpc-service-name='tempo' \
  --check-interval=5s \
  --timeout=2s \
  --healthy-threshold=2 \
  --unhealthy-threshold=2

# H2C is HTTP/2 in cleartext; HTTP2 would be HTTP/2 over TLS, and HTTP carries no gRPC. Instance
# groups name the port: gcloud compute instance-groups set-named-ports … --named-ports=tempo:9095
gcloud compute backend-services create upbeat-tempo \
  --global \
  --load-balancing-scheme=EXTERNAL_MANAGED \
  --protocol=H2C \
  --port-name=tempo \
  --health-checks=upbeat-tempo \
  --global-health-checks \
  --timeout=30s \
  --connection-draining-timeout=30s
