"""Every SQL statement of the store, by name, with its columns listed. `$n` in the order of the columns."""

LOCK_SCHEMA = "SELECT pg_advisory_xact_lock(7237125)"
"""Any constant: who applies the schema or imports agents waits for the one before."""

# ── Facts ──────────────────────────────────────────────────────────────────────────────────────────────────────

LOCK_BOOT = """
INSERT INTO spool_boot (boot_id) VALUES ($1)
ON CONFLICT (boot_id) DO UPDATE SET boot_id = EXCLUDED.boot_id
RETURNING shipped_seq
"""
"""How far this boot is; the row stays locked until the transaction ends."""

MOVE_BOOT = "UPDATE spool_boot SET shipped_seq = $2, shipped_at = now() WHERE boot_id = $1"

INSERT_CALL = """
INSERT INTO call (id, carrier, carrier_call_id, direction, from_number, to_number, agent_version_id, started_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, to_timestamp($8))
ON CONFLICT (id) DO NOTHING
"""

ANSWER_CALL = "UPDATE call SET answered_at = COALESCE(answered_at, to_timestamp($2)) WHERE id = $1"

# The first end stands, but for that of a call that had not begun: its stream may come later, or to another process.
END_CALL = """
UPDATE call SET end_reason = $2, duration_ms = $3, ended_at = to_timestamp($4), counters = $5
WHERE id = $1 AND (ended_at IS NULL OR end_reason IN ('no_media', 'refused'))
"""

INSERT_TURN = """
INSERT INTO turn (
    call_id, turn_no, turn_latency_ms,
    detect_ms, endpointing_ms, stt_ms, llm_ms, clause_ms, tts_ms, own_ms, playout_ms,
    interrupted, caller_text, agent_text, prompt_tokens, completion_tokens,
    stt_provider, llm_provider, tts_provider
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
ON CONFLICT (call_id, turn_no) DO NOTHING
"""

INSERT_SEGMENT = """
INSERT INTO transcript_segment (
    call_id, seq, speaker, text, heard_text, start_ms, end_ms, confidence, interrupted
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (call_id, seq) DO NOTHING
"""

INSERT_TOOL = """
INSERT INTO tool_invocation (call_id, tool_no, name, arguments, started_at)
VALUES ($1, $2, $3, $4, to_timestamp($5))
ON CONFLICT (call_id, tool_no) DO NOTHING
"""

END_TOOL = """
UPDATE tool_invocation SET outcome = $3, result = $4, attempts = $5, duration_ms = $6
WHERE call_id = $1 AND tool_no = $2 AND outcome IS NULL
"""

INSERT_QUARANTINE = """
INSERT INTO spool_quarantine (boot_id, seq, payload, error) VALUES ($1, $2, $3, $4)
ON CONFLICT (boot_id, seq) DO NOTHING
"""

# ── Agents ─────────────────────────────────────────────────────────────────────────────────────────────────────

UPSERT_AGENT = """
INSERT INTO agent (slug) VALUES ($1)
ON CONFLICT (slug) DO UPDATE SET slug = EXCLUDED.slug
RETURNING id
"""

INSERT_VERSION = """
INSERT INTO agent_version (agent_id, version, content_hash, settings)
SELECT $1::uuid, COALESCE(max(version), 0) + 1, $2, $3::jsonb FROM agent_version WHERE agent_id = $1::uuid
ON CONFLICT (agent_id, content_hash) DO NOTHING
"""

ACTIVATE_VERSION = """
UPDATE agent SET active_version_id = v.id
FROM agent_version AS v
WHERE agent.id = $1 AND v.agent_id = $1 AND v.content_hash = $2
    AND agent.active_version_id IS DISTINCT FROM v.id
"""

DELETE_OTHER_NUMBERS = "DELETE FROM phone_number WHERE agent_id = $1 AND number <> ALL ($2::text[])"

UPSERT_NUMBER = """
INSERT INTO phone_number (number, agent_id) VALUES ($1, $2)
ON CONFLICT (number) DO UPDATE SET agent_id = EXCLUDED.agent_id
"""

SELECT_AGENTS = """
SELECT a.slug, a.id AS agent_id, v.id, v.version, v.settings
FROM agent AS a JOIN agent_version AS v ON v.id = a.active_version_id
ORDER BY a.slug
"""

SELECT_NUMBERS = "SELECT number, agent_id FROM phone_number ORDER BY number"
