
# @listener@ (port @port@). An instance is out after interval × unhealthy_threshold: drain.delay
# (@drain_delay@) must not be shorter. The ALB's own defaults are 30 s × 2. Its listener towards
# clients has to be HTTPS.
resource "aws_lb_target_group" "upbeat_@id@" {
  name                 = "upbeat-@name@"
  vpc_id               = var.upbeat_vpc_id
  target_type          = "ip"
  port                 = @port@
  protocol             = "@protocol@"
  protocol_version     = "GRPC"
  deregistration_delay = @draining@

  health_check {
    protocol            = "@protocol@"
    port                = "@check_port@"
    path                = "@path@"
    matcher             = "@codes@"
    interval            = @interval@
    timeout             = @timeout@
    healthy_threshold   = @healthy@
    unhealthy_threshold = @unhealthy@
  }
}
