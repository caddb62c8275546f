package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
)

// takes is how long a call takes: at any time some are under way.
const takes = 2 * time.Millisecond

// serve receives traces as Tempo does, by grpc-go, and notes in its journal each call that it
// begins, by + and its x-call, and that it has finished, by -. On SIGTERM it stops gracefully, at
// once and without a warning, as otlpreceiver does. With the files of a certificate, its key and an
// authority it speaks TLS, and wants certificates of that authority.
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
	options, err := secured(others[1:])
	if err != nil {
		return err
	}
	server := grpc.NewServer(options...)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
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

// secured are the options of a server that speaks TLS; GRACE CERT KEY CA.
func secured(arguments []string) ([]grpc.ServerOption, error) {
	if len(arguments) < 4 {
		return nil, nil
	}
	own, err := tls.LoadX509KeyPair(arguments[1], arguments[2])
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(arguments[3])
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(authority) {
		return nil, errors.New("no certificate in " + arguments[3])
	}
	return []grpc.ServerOption{grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{own},
		ClientCAs:    clients,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	}))}, nil
}
