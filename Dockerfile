# The image of the gateway: the program, the three policies that come with it, and nothing else; no shell.
#
#   deploy/image/build.sh TAG     builds it with Docker or buildah
#   cargo xtask image             builds it here from nothing but Debian packages, starts it and asks for /healthz
#
# The two images that it is made from are named here by tag, so that it can be read. What is released is built from
# digests: `deploy/image/bases.env` holds them, `deploy/image/pin.sh` writes them there, and `build.sh --release` refuses
# to build without them.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

# What dependencies are compiled from: manifests and the lock file, and an empty file for each target. As long as these
# are the same, the next stage's layer is, too, whatever else has changed.
FROM ${RUST_IMAGE} AS skeleton
WORKDIR /source
COPY . .
RUN deploy/image/skeleton.sh /skeleton

FROM ${RUST_IMAGE} AS build
ENV CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never
# `dist` takes 9 GB of memory to build; `--build-arg PROFILE=release` takes less, and a call of the gateway more.
ARG PROFILE=dist
# What the program is made of is written into it, so that a scanner finds it in an image, too.
ARG CARGO_AUDITABLE=0.7.7
RUN cargo install --locked --version ${CARGO_AUDITABLE} cargo-auditable
WORKDIR /source
COPY --from=skeleton /skeleton .
RUN cargo auditable build --locked --profile ${PROFILE} --package countersign --package xtask
COPY . .
# Cargo goes by times: what replaces the skeleton must be newer than what was made of it.
# Modules are the same on every platform, but their pinned digests are those of builds on x86_64.
ARG POLICIES=--allow-unpinned
RUN find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
 && cargo auditable build --locked --profile ${PROFILE} --package countersign \
 && cargo run --locked --profile ${PROFILE} --package xtask -- policies --out /out/usr/share/countersign/policies ${POLICIES} \
 && deploy/package/split.sh target/${PROFILE}/countersign /out/usr/bin /debug \
 && mkdir -p /out/var/lib/countersign /out/var/cache/countersign

# For `--target debug --output DIR`: what a debugger needs beside the program.
FROM scratch AS debug
COPY --from=build /debug /

FROM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title="Countersign" \
      org.opencontainers.image.description="The gate in front of risky automation" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/usr /usr
COPY --from=build --chown=65532:65532 /out/var/lib/countersign /var/lib/countersign
COPY --from=build --chown=65532:65532 /out/var/cache/countersign /var/cache/countersign
# The database, its keys and the spool are on one volume. The compiled modules are on another, made at the first start:
# what authenticates them is derived from the installation's key, so an image cannot bring them.
ENV COUNTERSIGN_STORE=sqlite:/var/lib/countersign/countersign.db \
    COUNTERSIGN_CACHE_DIR=/var/cache/countersign \
    COUNTERSIGN_POLICIES=/etc/countersign/policies \
    COUNTERSIGN_OPS_LISTEN=127.0.0.1:9090 \
    COUNTERSIGN_LISTEN=0.0.0.0:8080
VOLUME ["/var/lib/countersign", "/var/cache/countersign"]
WORKDIR /var/lib/countersign
EXPOSE 8080
# The uid of distroless' `nonroot`, as a number: Kubernetes cannot tell from a name that it is not root.
USER 65532:65532
# Calls and deliveries are finished within 9 s; docker stop waits for 10 s.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/bin/countersign", "health"]
ENTRYPOINT ["/usr/bin/countersign"]
CMD ["serve"]
