# The bases, by tag. A release names them by digest (.github/workflows/release.yml).
ARG RUST_IMAGE=rust:1-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
WORKDIR /payonce

# The dependencies alone, so that a change of our code does not compile them again. Empty sources stand in for ours, and
# an empty build script, because the real one would ask for sqlx-data.json.
# The adapters and the benchmark are part of the workspace, but not of the image: their stand-ins stay.
COPY Cargo.toml Cargo.lock ./
COPY engine/Cargo.toml engine/
COPY bench/Cargo.toml bench/
COPY adapters/core/Cargo.toml adapters/core/
COPY adapters/actix/Cargo.toml adapters/actix/
COPY adapters/axum/Cargo.toml adapters/axum/
COPY adapters/suite/Cargo.toml adapters/suite/
RUN mkdir -p src/bin engine/src bench/src adapters/core/src adapters/actix/src adapters/axum/src adapters/suite/src \
        adapters/actix/examples adapters/axum/examples \
    && touch src/lib.rs engine/src/lib.rs engine/README.md adapters/core/src/lib.rs adapters/actix/src/lib.rs \
        adapters/axum/src/lib.rs adapters/suite/src/lib.rs \
        adapters/actix/examples/orders.rs adapters/actix/examples/charged_orders.rs \
        adapters/axum/examples/orders.rs adapters/axum/examples/charged_orders.rs \
    && echo 'fn main() {}' | tee engine/build.rs src/bin/payonce.rs src/bin/payonce-cleanup.rs bench/src/main.rs >/dev/null \
    && cargo build --release --locked --bins \
    && rm -r src engine/src engine/build.rs

COPY sqlx-data.json ./
COPY engine engine
COPY migrations migrations
COPY src src
# Cargo goes by modification times, and those that COPY keeps may be older than the stand-ins'.
RUN find src engine -type f -exec touch {} + && cargo build --release --locked --bins

# The programs alone, for a release: docker build --target programs --output type=local,dest=DIR .
FROM scratch AS programs
COPY --from=build /payonce/target/release/payonce /payonce/target/release/payonce-cleanup /

FROM ${BASE_IMAGE} AS image
# For the TLS of a gateway or database outside.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 65532 payonce \
    && useradd --uid 65532 --gid payonce --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin payonce \
    # A volume that is mounted here belongs to the user, too.
    && install -d -o payonce -g payonce /var/lib/payonce/textfile
COPY --from=build /payonce/target/release/payonce /payonce/target/release/payonce-cleanup /usr/local/bin/
# For a job that sets the database up, in the version of the programs.
COPY deploy/roles.sql deploy/roles.sh /usr/local/share/payonce/
# By number: Kubernetes refuses a name where it has to know that it is not root's.
USER 65532:65532
# Inside a container, nobody outside can reach the loopback address.
ENV PAYONCE_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=3 CMD ["payonce", "ready"]
CMD ["payonce", "serve"]

ARG VERSION=0.1.0
ARG REVISION=unknown
ARG BASE_IMAGE
LABEL org.opencontainers.image.title="payonce" \
    org.opencontainers.image.description="A payments service whose clients may repeat any request, and are charged once" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="${BASE_IMAGE}"
