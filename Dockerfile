# Both programs, static, in an image with nothing else: docker build --tag timeshard .
# The builder may be given by digest, as a release does: --build-arg RUST_IMAGE=rust:1.95.0-alpine@sha256:…
ARG RUST_IMAGE=rust:1.95.0-alpine

FROM ${RUST_IMAGE} AS build
RUN apk add --no-cache musl-dev
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY examples examples
# Alpine's Rust links musl statically. The agent is built by itself: nothing that only the server needs may be in it.
RUN cargo build --locked --release --bin timeshard \
    && cargo build --locked --release --no-default-features --features agent --bin timeshard-agent --target-dir /src/agent \
    && install -D -m 755 target/release/timeshard agent/release/timeshard-agent -t /out

FROM scratch
LABEL org.opencontainers.image.title="thanos-timeshard" \
      org.opencontainers.image.description="Time-shards Thanos Store Gateways by admission" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/ /
# Numeric, so that runAsNonRoot can be checked without a passwd file.
USER 65532:65532
ENTRYPOINT ["/timeshard"]
