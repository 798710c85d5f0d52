# An image with only both programs, static.
#   docker build --tag timeshard --build-arg REVISION=$(git rev-parse HEAD) .     for this machine's processor
#   docker buildx build --platform linux/amd64,linux/arm64 .                      for both, without emulation

FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS build
ARG TARGETARCH
# One dependency's C code needs a cross compiler for the other processor; the image has the native one.
RUN case $(dpkg --print-architecture)-${TARGETARCH:=$(dpkg --print-architecture)} in \
    amd64-arm64) packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;; \
    arm64-amd64) packages="gcc-x86-64-linux-gnu libc6-dev-amd64-cross" ;; \
    esac; \
    [ -z "${packages-}" ] || { apt-get update -q && apt-get install -qy --no-install-recommends $packages; }
WORKDIR /src
COPY . .
ARG REVISION=""
RUN TIMESHARD_REVISION=$REVISION deploy/image/static "${TARGETARCH:-$(dpkg --print-architecture)}" /out

FROM scratch
ARG VERSION="" REVISION="" CREATED="" SOURCE=https://github.com/thanos-timeshard/thanos-timeshard
LABEL org.opencontainers.image.title="thanos-timeshard" \
      org.opencontainers.image.description="Time-shards Thanos Store Gateways by admission" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.documentation="$SOURCE#readme" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
COPY --from=build /out/ /
# Numeric, so that runAsNonRoot can be checked without a passwd file.
USER 65532:65532
ENTRYPOINT ["/timeshard"]
