# upbeat cloud aws --as terraform --config config/examples/aws-alb.yaml
# AWS Application Load Balancer with gRPC target groups.
#
# An ALB reads the status code of a health check and not its message, sends neither a service name
# nor a header, and sends traffic to all targets when none is healthy. What that means:
#
#   path                          codes  ELB-HealthChecker  backends serve  they do not
#   /grpc.health.v1.Health/Check  0      status             0: healthy      14: unhealthy
#   /grpc.health.v1.Health/Check  0      message            0: healthy      0: HEALTHY
#   /AWS.ALB/healthcheck          12     either             12: healthy     14: unhealthy
#
# The third column is what health.not_serving_as_for says; status by default.
#
# A recipe that goes around for Tempo is the first path with success code 2. It is UNKNOWN: what
# Tempo answers to a check without a tenant ("no org id"), dead backends or not, so it passes for
# any server that lives. Upbeat says 0 or 14, so write '0'.
# Codes such as 0-99 pass everything.
#
# A Network Load Balancer has no gRPC check: GET http://…:4317/readyz there, code 200.

variable "upbeat_vpc_id" {
  type = string
}

# otlp (port 4317). An instance is out after interval × unhealthy_threshold: drain.delay
# (1m 5s) must not be shorter. The ALB's own defaults are 30 s × 2. Its listener towards
# clients has to be HTTPS.
resource "aws_lb_target_group" "upbeat_otlp" {
  name                 = "upbeat-otlp"
  vpc_id               = var.upbeat_vpc_id
  target_type          = "ip"
  port                 = 4317
  protocol             = "HTTP"
  protocol_version     = "GRPC"
  deregistration_delay = 30

  health_check {
    protocol            = "HTTP"
    port                = "traffic-port"
    path                = "/grpc.health.v1.Health/Check"
    matcher             = "0"
    interval            = 5
    timeout             = 2
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}
