
# @listener@ (port @port@). The probe GETs health and wants exactly 200. An instance is out after
# interval × threshold: drain.delay (@drain_delay@) must not be shorter.
az network lb probe create \
  --resource-group "$RESOURCE_GROUP" \
  --lb-name "$LB" \
  --name upbeat-@name@ \
  --protocol Http \
  --port @check_port@ \
  --path @path@ \
  --interval @interval@ \
  --probe-threshold @unhealthy@
az network lb rule create \
  --resource-group "$RESOURCE_GROUP" \
  --lb-name "$LB" \
  --name upbeat-@name@ \
  --protocol Tcp \
  --frontend-port @port@ \
  --backend-port @port@ \
  --backend-pool-name "$POOL" \
  --probe-name upbeat-@name@ \
  --enable-tcp-reset true
