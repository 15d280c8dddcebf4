# The base images are arguments so that others (a mirror's, a distribution's, one by digest) can stand in for them.
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG LITEFS_IMAGE=flyio/litefs:0.5
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${LITEFS_IMAGE} AS litefs

# Docker runs the three stages after this one at the same time. Cargo's lock is beside its registry and not in it, so each
# has that cache for itself; in `target` there is a lock. `sharing=locked` has podman 4.3 wait for ever.
FROM ${RUST_IMAGE} AS rust
WORKDIR /build

# What the image is made of, as a list: crates, versions, licences, hashes.
# It runs for a second: what optimising takes would be lost.
FROM rust AS sbom
RUN --mount=type=cache,id=registry-sbom,target=/usr/local/cargo/registry \
    cargo install --locked --debug --root /usr/local cargo-sbom@0.10.0
COPY . .
RUN --mount=type=cache,id=registry-sbom,target=/usr/local/cargo/registry \
    cargo sbom --cargo-package litefs-counter --output-format cyclone_dx_json_1_6 > /sbom.cdx.json

FROM rust AS build
# `quick` for those who try the image and not its speed: see Cargo.toml.
ARG PROFILE=release
COPY . .
# The caches outlive this build, so that only what changed is compiled, and are no part of the image, hence the copy.
# They may be another checkout's: Cargo goes by times, so what is ours gets a new one.
RUN --mount=type=cache,id=registry-build,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    touch build.rs src/lib.rs ./*/src/lib.rs \
    && cargo build --profile "$PROFILE" --locked --package litefs-counter \
    && cp "target/$PROFILE/litefs-counter" /usr/local/bin/

# Fly's edge and private DNS for compose.yaml; no part of what is deployed.
FROM rust AS build-edge
ARG PROFILE=release
COPY . .
RUN --mount=type=cache,id=registry-edge,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    touch build.rs src/lib.rs ./*/src/lib.rs \
    && cargo build --profile "$PROFILE" --locked --package devcluster --bin edge \
    && cp "target/$PROFILE/edge" /usr/local/bin/

FROM ${RUNTIME_IMAGE} AS edge
COPY --from=build-edge /usr/local/bin/edge /usr/local/bin/edge
ENTRYPOINT ["edge"]

FROM ${RUNTIME_IMAGE} AS app
# fuse3: LiteFS mounts with it. sqlite3: for people who look into the database on a machine.
# A version pinned here would be gone from Debian's mirrors with the next security update.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates fuse3 sqlite3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin counter

# litefs.yml and the application read these. PORT is the application's, INTERNAL_PORT that of LiteFS's proxy before it.
ENV LITEFS_DIR=/litefs
ENV DATABASE_FILENAME=sqlite.db
ENV DATABASE_URL=sqlite://$LITEFS_DIR/$DATABASE_FILENAME
ENV INTERNAL_PORT=8080
ENV PORT=8081

COPY --from=litefs /usr/local/bin/litefs /usr/local/bin/litefs
COPY --from=build /usr/local/bin/litefs-counter /usr/local/bin/litefs-counter
COPY --from=sbom /sbom.cdx.json /usr/local/share/litefs-counter/sbom.cdx.json
COPY image/database-cli image/healthcheck /usr/local/bin/
COPY litefs.yml /etc/litefs.yml

# For engines that look at it. Fly asks by itself: fly.toml, http_service.checks.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["healthcheck"]

# https://github.com/opencontainers/image-spec/blob/main/annotations.md
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="litefs-counter" \
    org.opencontainers.image.description="A counter on SQLite, replicated to many regions by LiteFS" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.source="$SOURCE" \
    org.opencontainers.image.revision="$REVISION"

# It starts `litefs mount`, and gives its lease back if it dies. As root, for FUSE; litefs.yml starts the application as the
# user `counter`.
ENTRYPOINT ["litefs-counter", "launch"]
