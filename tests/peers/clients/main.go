// Grpc-go's health clients, one to a word:
//
//	grpc-go check ADDRESS [SERVICE]    one Check: the status, or the code of the error
//	grpc-go watch ADDRESS [SERVICE]    one Watch: a line for every message, and for its end
//	grpc-go follow SERVICE ADDRESS...  client-side health checking by the service config:
//	                                   "ADDRESS STATE" whenever a connection's state changes
//	grpc-go spread SERVICE ADDRESS...  exports over one channel to all the addresses, one each
//	                                   20 ms; a line for the code of each
//	grpc-go kubelet ADDRESS [SERVICE]  as the kubelet's grpc probe; exit code 1 is a failure
//	grpc-go traefik ADDRESS            as Traefik's gRPC health check; the same
//	grpc-go serve PORT JOURNAL ...     a backend to be restarted, or one with TLS, see serve.go
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	// Without it the service config's health check says nothing, and does nothing.
	_ "google.golang.org/grpc/health"
)

const (
	export  = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
	timeout = 10 * time.Second
)

var plain = grpc.WithTransportCredentials(insecure.NewCredentials())

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) < 2 {
		return errors.New("usage: grpc-go WORD ADDRESS [SERVICE], see main.go")
	}
	word, first, others := arguments[0], arguments[1], arguments[2:]
	service := strings.Join(others, "")
	switch word {
	case "check":
		return check(first, service)
	case "watch":
		return watch(first, service)
	case "follow":
		return follow(first, others)
	case "spread":
		return spread(first, others)
	case "kubelet":
		return kubelet(first, service)
	case "traefik":
		return traefik(first)
	case "serve":
		return serve(first, others)
	}
	return fmt.Errorf("no such word: %s", word)
}

func check(address, service string) error {
	connection, err := grpc.NewClient(address, plain)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	request := &grpc_health_v1.HealthCheckRequest{Service: service}
	reply, err := grpc_health_v1.NewHealthClient(connection).Check(ctx, request)
	if err != nil {
		return errors.New(status.Code(err).String())
	}
	fmt.Println(reply.GetStatus())
	return nil
}

func watch(address, service string) error {
	connection, err := grpc.NewClient(address, plain)
	if err != nil {
		return err
	}
	request := &grpc_health_v1.HealthCheckRequest{Service: service}
	stream, err := grpc_health_v1.NewHealthClient(connection).Watch(context.Background(), request)
	if err != nil {
		return err
	}
	for {
		reply, err := stream.Recv()
		if err != nil {
			return errors.New(status.Code(err).String())
		}
		fmt.Println(reply.GetStatus())
	}
}

// checked is a channel that spreads over the addresses whose service says SERVING by Watch.
func checked(service string, addresses ...string) (*grpc.ClientConn, error) {
	endpoints := make([]resolver.Address, 0, len(addresses))
	for _, address := range addresses {
		endpoints = append(endpoints, resolver.Address{Addr: address})
	}
	resolved := manual.NewBuilderWithScheme("peers")
	resolved.InitialState(resolver.State{Addresses: endpoints})
	config := fmt.Sprintf(`{
		"loadBalancingConfig": [{"round_robin": {}}],
		"healthCheckConfig": {"serviceName": %q}
	}`, service)
	connection, err := grpc.NewClient(
		resolved.Scheme()+":///all",
		plain,
		grpc.WithResolvers(resolved),
		grpc.WithDefaultServiceConfig(config),
		grpc.WithDisableRetry(),
	)
	if err != nil {
		return nil, err
	}
	connection.Connect()
	return connection, nil
}

func follow(service string, addresses []string) error {
	ended := make(chan error)
	for _, address := range addresses {
		connection, err := checked(service, address)
		if err != nil {
			return err
		}
		go func() {
			for state := connection.GetState(); ; state = connection.GetState() {
				fmt.Println(address, state)
				if state == connectivity.Shutdown {
					ended <- errors.New("shut down")
				}
				connection.WaitForStateChange(context.Background(), state)
			}
		}()
	}
	return <-ended
}

func spread(service string, addresses []string) error {
	connection, err := checked(service, addresses...)
	if err != nil {
		return err
	}
	for range time.Tick(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		ctx = metadata.AppendToOutgoingContext(ctx, "x-call", "front")
		// An empty message is an empty message, of whatever type.
		err := connection.Invoke(ctx, export, &emptypb.Empty{}, &emptypb.Empty{})
		cancel()
		fmt.Println(status.Code(err))
	}
	return nil
}

// kubelet is pkg/probe/grpc of Kubernetes: it dials anew each time, and within the one timeout.
func kubelet(address, service string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	//nolint:staticcheck // Deprecated, and what the kubelet does.
	connection, err := grpc.DialContext(ctx, address, plain, grpc.WithBlock(),
		grpc.WithUserAgent("kube-probe/1.34"))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx = metadata.NewOutgoingContext(ctx, metadata.MD{})
	return serving(ctx, connection, service)
}

// traefik is pkg/healthcheck of Traefik: no service, and Unimplemented is a failure as others are.
func traefik(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	connection, err := grpc.NewClient(address, plain)
	if err != nil {
		return err
	}
	defer connection.Close()
	err = serving(ctx, connection, "")
	if status.Code(err) == codes.Unimplemented {
		return errors.New("gRPC server does not implement the health protocol")
	}
	return err
}

func serving(ctx context.Context, connection *grpc.ClientConn, service string) error {
	request := &grpc_health_v1.HealthCheckRequest{Service: service}
	reply, err := grpc_health_v1.NewHealthClient(connection).Check(ctx, request)
	if err != nil {
		return err
	}
	if reply.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("status %s", reply.GetStatus())
	}
	return nil
}
