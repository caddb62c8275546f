# upbeat cloud azure --as shell --config config/upbeat.yaml
# Azure Load Balancer: a probe and a rule for each port. The balancer, its frontend and its pool are
# yours; Standard SKU, which has --probe-threshold.
set -eu
: "${RESOURCE_GROUP:?}" "${LB:?}" "${POOL:?}"

# otlp (port 4317). The probe GETs health and wants exactly 200. An instance is out after
# interval × threshold: drain.delay (15s) must not be shorter.
az network lb probe create \
  --resource-group "$RESOURCE_GROUP" \
  --lb-name "$LB" \
  --name upbeat-otlp \
  --protocol Http \
  --port 8080 \
  --path '/readyz?service=opentelemetry.proto.collector.trace.v1.TraceService' \
  --interval 5 \
  --probe-threshold 2
az network lb rule create \
  --resource-group "$RESOURCE_GROUP" \
  --lb-name "$LB" \
  --name upbeat-otlp \
  --protocol Tcp \
  --frontend-port 4317 \
  --backend-port 4317 \
  --backend-pool-name "$POOL" \
  --probe-name upbeat-otlp \
  --enable-tcp-reset true

# tempo (port 9095). The probe GETs health and wants exactly 200. An instance is out after
# interval × threshold: drain.delay (15s) must not be shorter.
az network lb probe create \
  --resource-group "$RESOURCE_GROUP" \
  --lb-name "$LB" \
  --name upbeat-tempo \
  --protocol Http \
  --port 8080 \
  --path '/readyz' \
  --interval 5 \
  --probe-threshold 2
az network lb rule create \
  --resource-group "$RESOURCE_GROUP" \
  --lb-name "$LB" \
  --name upbeat-tempo \
  --protocol Tcp \
  --frontend-port 9095 \
  --backend-port 9095 \
  --backend-pool-name "$POOL" \
  --probe-name upbeat-tempo \
  --enable-tcp-reset true
