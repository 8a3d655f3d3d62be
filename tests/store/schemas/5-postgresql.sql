-- What version 5 of the schema was made with on postgresql.

CREATE TABLE schema_version (
    id INTEGER NOT NULL,
    version INTEGER NOT NULL,
    CONSTRAINT pk_schema_version PRIMARY KEY (id)
);

CREATE TABLE logs (
    sha256 TEXT NOT NULL,
    kind TEXT NOT NULL,
    content BYTEA NOT NULL,
    CONSTRAINT pk_logs PRIMARY KEY (sha256)
);

CREATE TABLE secrets (
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    roles TEXT NOT NULL,
    nonce BYTEA NOT NULL,
    ciphertext BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    removed_at BIGINT,
    CONSTRAINT pk_secrets PRIMARY KEY (name, version)
);

CREATE TABLE reference_documents (
    sha256 TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    document BYTEA NOT NULL,
    accepted_at BIGINT NOT NULL,
    active BOOLEAN NOT NULL,
    CONSTRAINT pk_reference_documents PRIMARY KEY (sha256)
);

CREATE TABLE policies (
    version INTEGER NOT NULL,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    document BYTEA NOT NULL,
    applied_at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    CONSTRAINT pk_policies PRIMARY KEY (version),
    CONSTRAINT uq_policies_sha256 UNIQUE (sha256)
);

CREATE TABLE tokens (
    hash TEXT NOT NULL,
    role TEXT NOT NULL,
    label TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_tokens PRIMARY KEY (hash)
);

CREATE TABLE log_state (
    origin TEXT NOT NULL,
    size BIGINT NOT NULL,
    checkpoint TEXT NOT NULL,
    CONSTRAINT pk_log_state PRIMARY KEY (origin)
);

CREATE TABLE log_batches (
    origin TEXT NOT NULL,
    start BIGINT NOT NULL,
    count INTEGER NOT NULL,
    bundle BYTEA NOT NULL,
    checkpoint TEXT NOT NULL,
    CONSTRAINT pk_log_batches PRIMARY KEY (origin, start)
);

CREATE TABLE log_files (
    origin TEXT NOT NULL,
    path TEXT NOT NULL,
    content BYTEA NOT NULL,
    CONSTRAINT pk_log_files PRIMARY KEY (origin, path)
);

CREATE TABLE nodes (
    id TEXT NOT NULL,
    name TEXT,
    role TEXT,
    state TEXT NOT NULL,
    state_reason TEXT NOT NULL,
    ek_public BYTEA NOT NULL,
    ak_public BYTEA NOT NULL,
    ek_root TEXT NOT NULL,
    name_hint TEXT,
    mode TEXT NOT NULL,
    enrolled_at BIGINT NOT NULL,
    approved_at BIGINT,
    readmitted BOOLEAN NOT NULL,
    reset_count BIGINT NOT NULL,
    restart_count BIGINT NOT NULL,
    clock BIGINT NOT NULL,
    last_attested BIGINT,
    last_verdict TEXT,
    boot_log TEXT,
    trusted_log TEXT,
    CONSTRAINT pk_nodes PRIMARY KEY (id),
    CONSTRAINT uq_nodes_name UNIQUE (name),
    CONSTRAINT fk_nodes_boot_log_logs FOREIGN KEY(boot_log) REFERENCES logs (sha256)
);

CREATE TABLE reenrolments (
    node_id TEXT NOT NULL,
    ak_public BYTEA NOT NULL,
    at BIGINT NOT NULL,
    CONSTRAINT pk_reenrolments PRIMARY KEY (node_id),
    CONSTRAINT fk_reenrolments_node_id_nodes FOREIGN KEY(node_id) REFERENCES nodes (id)
);

CREATE TABLE appraisals (
    id BIGSERIAL NOT NULL,
    node_id TEXT NOT NULL,
    at BIGINT NOT NULL,
    verdict TEXT NOT NULL,
    reasons BYTEA NOT NULL,
    facts BYTEA NOT NULL,
    events_sha256 TEXT NOT NULL,
    evidence_sha256 TEXT NOT NULL,
    logs TEXT NOT NULL,
    entry_index BIGINT NOT NULL,
    CONSTRAINT pk_appraisals PRIMARY KEY (id),
    CONSTRAINT fk_appraisals_node_id_nodes FOREIGN KEY(node_id) REFERENCES nodes (id),
    CONSTRAINT fk_appraisals_events_sha256_logs FOREIGN KEY(events_sha256) REFERENCES logs (sha256)
);

CREATE INDEX ix_appraisals_node_id_id ON appraisals (node_id, id);

CREATE TABLE container_records (
    node_id TEXT NOT NULL,
    records BIGINT NOT NULL,
    logged_records BIGINT NOT NULL,
    logged_size BIGINT NOT NULL,
    logged_sha256 TEXT NOT NULL,
    document BYTEA NOT NULL,
    CONSTRAINT pk_container_records PRIMARY KEY (node_id),
    CONSTRAINT fk_container_records_node_id_nodes FOREIGN KEY(node_id) REFERENCES nodes (id)
);

CREATE TABLE container_index_records (
    node_id TEXT NOT NULL,
    nv_index BIGINT NOT NULL,
    records BIGINT NOT NULL,
    logged_records BIGINT NOT NULL,
    logged_size BIGINT NOT NULL,
    logged_sha256 TEXT NOT NULL,
    document BYTEA NOT NULL,
    CONSTRAINT pk_container_index_records PRIMARY KEY (node_id, nv_index),
    CONSTRAINT fk_container_index_records_node_id_nodes FOREIGN KEY(node_id) REFERENCES nodes (id)
);

CREATE TABLE secret_releases (
    node_id TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    at BIGINT NOT NULL,
    CONSTRAINT pk_secret_releases PRIMARY KEY (node_id, name, version),
    CONSTRAINT fk_secret_releases_node_id_nodes FOREIGN KEY(node_id) REFERENCES nodes (id)
);

CREATE TABLE certificates (
    serial TEXT NOT NULL,
    node_id TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    CONSTRAINT pk_certificates PRIMARY KEY (serial),
    CONSTRAINT fk_certificates_node_id_nodes FOREIGN KEY(node_id) REFERENCES nodes (id)
);

CREATE INDEX ix_certificates_node_id ON certificates (node_id);

CREATE INDEX ix_certificates_not_after ON certificates (not_after);
