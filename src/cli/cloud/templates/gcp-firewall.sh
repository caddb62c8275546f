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
  --source-ranges=@ranges@ \
  --rules=@rules@
