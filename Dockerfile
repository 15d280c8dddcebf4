# The base images are arguments so that others (a mirror's, a distribution's) can stand in for them.
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG LITEFS_IMAGE=flyio/litefs:0.5
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${LITEFS_IMAGE} AS litefs

FROM ${RUST_IMAGE} AS build
WORKDIR /build
COPY . .
# The caches outlive this build: only what changed is compiled. They are no part of the image, hence the copy.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --package litefs-counter \
    && cp target/release/litefs-counter /usr/local/bin/

FROM ${RUNTIME_IMAGE}
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
COPY litefs.yml /etc/litefs.yml

# It starts `litefs mount`, and gives its lease back if it dies. As root, for FUSE; litefs.yml starts the application as the
# user `counter`.
ENTRYPOINT ["litefs-counter", "launch"]
