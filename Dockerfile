# syntax=docker/dockerfile:1

FROM rust:1-bookworm AS build
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

FROM debian:bookworm-slim
# For the TLS of a gateway or database outside.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --user-group --no-create-home --shell /usr/sbin/nologin payonce \
    # A volume that is mounted here belongs to the user, too.
    && install -d -o payonce -g payonce /var/lib/payonce/textfile
COPY --from=build /payonce/target/release/payonce /payonce/target/release/payonce-cleanup /usr/local/bin/
USER payonce
# Inside a container the loopback address reaches nobody.
ENV PAYONCE_LISTEN=0.0.0.0:8080
EXPOSE 8080
CMD ["payonce", "serve"]
