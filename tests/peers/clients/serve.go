package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
)

// takes is how long a call takes: at any time some are under way.
const takes = 2 * time.Millisecond

// serve receives traces as Tempo does, by grpc-go, and notes in its journal each call that it
// begins, by + and its x-call, and that it has finished, by -. On SIGTERM it stops gracefully, at
// once and without a warning, as otlpreceiver does.
func serve(port string, others []string) error {
	if len(others) == 0 {
		return fmt.Errorf("usage: grpc-go serve PORT JOURNAL")
	}
	notes, err := os.OpenFile(others[0], os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	note := func(ctx context.Context, sign string) {
		for _, call := range metadata.ValueFromIncomingContext(ctx, "x-call") {
			fmt.Fprintf(notes, "%s%s\n", sign, call)
		}
	}
	receive := func(_ any, ctx context.Context, decode func(any) error,
		_ grpc.UnaryServerInterceptor,
	) (any, error) {
		// What is not known of a message is kept as it is.
		if err := decode(&emptypb.Empty{}); err != nil {
			return nil, err
		}
		note(ctx, "+")
		time.Sleep(takes)
		note(ctx, "-")
		return &emptypb.Empty{}, nil
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.trace.v1.TraceService",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Export", Handler: receive}},
	}, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		server.GracefulStop()
	}()
	return server.Serve(listener)
}
