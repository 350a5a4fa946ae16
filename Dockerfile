# docker build -t key-cycle-proxy .
# docker run -p 8080:8080 -e OPENAI_KEYS=sk-…,sk-… -e PROXY_API_KEY=… key-cycle-proxy

FROM rust:1-slim-bookworm AS builder
WORKDIR /build
# The allocator is built with it.
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
# What .dockerignore lets through.
COPY . .
RUN cargo build --release --locked --bin key-cycle-proxy \
    && mkdir -p /app/data

# Certificates, libc, and nothing to log in to: no shell, no package manager, uid 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=builder /build/target/release/key-cycle-proxy /usr/local/bin/key-cycle-proxy
COPY --from=builder --chown=65532:65532 /app /app
# config.toml, config.json, config.yaml and .env are read here; what is to outlive the container goes to data.
WORKDIR /app
VOLUME /app/data
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s \
    CMD ["/usr/local/bin/key-cycle-proxy", "health"]
ENTRYPOINT ["/usr/local/bin/key-cycle-proxy"]
# In a container loopback is reached by nobody. Without a client key the start says what that means.
CMD ["--bind", "0.0.0.0"]
