FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends make
WORKDIR /upbeat
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY src src
RUN cargo build --release --locked

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /upbeat/target/release/upbeat /upbeat
COPY config/upbeat.yaml /config/upbeat.yaml
WORKDIR /
EXPOSE 4317 9095 8080
HEALTHCHECK --interval=5s --timeout=2s --start-period=5s CMD ["/upbeat", "probe", "127.0.0.1:8080"]
ENTRYPOINT ["/upbeat"]
CMD ["run"]
