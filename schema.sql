-- The whole database of Talkspurt. Applying it twice does no harm: every statement creates what is missing.
-- Changes expand first and contract a release later, so that two versions can run on one database.

-- ── Agents ─────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE IF NOT EXISTS agent (
    id                 uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    slug               text        NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    active_version_id  uuid,
    created_at         timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE agent IS 'a configured voice persona; what it says and how is in its versions';
COMMENT ON COLUMN agent.slug IS 'name of the YAML file that it was imported from, without .yaml';
COMMENT ON COLUMN agent.active_version_id IS 'version that new calls get; a running call keeps the one it began with';

CREATE TABLE IF NOT EXISTS agent_version (
    id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    agent_id      uuid        NOT NULL REFERENCES agent ON DELETE CASCADE,
    version       integer     NOT NULL CHECK (version >= 1),
    content_hash  text        NOT NULL CHECK (content_hash ~ '^[0-9a-f]{64}$'),
    settings      jsonb       NOT NULL CHECK (jsonb_typeof(settings) = 'object'),
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (agent_id, version),
    UNIQUE (agent_id, content_hash)
);
COMMENT ON TABLE agent_version IS 'settings of an agent at one time; never updated';
COMMENT ON COLUMN agent_version.content_hash IS 'SHA-256 of the settings; an import of known content makes no version';
COMMENT ON COLUMN agent_version.settings IS 'server/agent/settings.py, all defaults filled in';

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'agent_active_version_id_fkey') THEN
        ALTER TABLE agent
            ADD CONSTRAINT agent_active_version_id_fkey
            FOREIGN KEY (active_version_id) REFERENCES agent_version ON DELETE SET NULL;
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS phone_number (
    number      text        PRIMARY KEY CHECK (number = '*' OR number ~ '^\+[1-9][0-9]{6,14}$'),
    agent_id    uuid        NOT NULL REFERENCES agent ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS phone_number_agent_id_idx ON phone_number (agent_id);
COMMENT ON TABLE phone_number IS 'which agent answers which of our numbers';
COMMENT ON COLUMN phone_number.number IS 'E.164 with the plus sign; * answers every number that has no row';

-- ── Calls ──────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE IF NOT EXISTS call (
    id                uuid        PRIMARY KEY,
    carrier           text        NOT NULL CHECK (carrier IN ('twilio', 'telnyx', 'browser')),
    carrier_call_id   text        NOT NULL,
    direction         text        NOT NULL CHECK (direction IN ('inbound', 'outbound')),
    from_number       text        NOT NULL,
    to_number         text        NOT NULL,
    agent_version_id  uuid        NOT NULL REFERENCES agent_version ON DELETE RESTRICT,
    started_at        timestamptz NOT NULL,
    answered_at       timestamptz,
    ended_at          timestamptz,
    end_reason        text,
    duration_ms       bigint      CHECK (duration_ms >= 0),
    counters          jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(counters) = 'object'),
    CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);
-- Not unique: a carrier's repeated webhook is refused before it is a call; here it must not cost us a transcript.
CREATE INDEX IF NOT EXISTS call_carrier_call_id_idx ON call (carrier_call_id, carrier);
CREATE INDEX IF NOT EXISTS call_started_at_idx ON call (started_at DESC, id);
CREATE INDEX IF NOT EXISTS call_agent_version_id_idx ON call (agent_version_id);
COMMENT ON TABLE call IS 'one conversation, from the carrier''s first word of it to hang-up';
COMMENT ON COLUMN call.carrier_call_id IS 'the carrier''s own name of the call; ours again for the browser';
COMMENT ON COLUMN call.from_number IS 'as the carrier gave it: E.164, or words such as "anonymous"';
COMMENT ON COLUMN call.agent_version_id IS 'pinned when the call began';
COMMENT ON COLUMN call.started_at IS 'webhook accepted, or dialling began';
COMMENT ON COLUMN call.answered_at IS 'media stream open; NULL when none came';
COMMENT ON COLUMN call.ended_at IS 'NULL while the call runs, or when its process died before it ended';
COMMENT ON COLUMN call.duration_ms IS 'length of the media stream';
COMMENT ON COLUMN call.counters IS 'frames, gaps, duplicates, underruns of the media stream';

CREATE TABLE IF NOT EXISTS turn (
    call_id            uuid             NOT NULL REFERENCES call ON DELETE CASCADE,
    turn_no            integer          NOT NULL CHECK (turn_no >= 0),
    turn_latency_ms    double precision CHECK (turn_latency_ms >= 0),
    detect_ms          double precision CHECK (detect_ms >= 0),
    endpointing_ms     double precision CHECK (endpointing_ms >= 0),
    stt_ms             double precision CHECK (stt_ms >= 0),
    llm_ms             double precision CHECK (llm_ms >= 0),
    clause_ms          double precision CHECK (clause_ms >= 0),
    tts_ms             double precision CHECK (tts_ms >= 0),
    own_ms             double precision CHECK (own_ms >= 0),
    playout_ms         double precision CHECK (playout_ms >= 0),
    interrupted        boolean          NOT NULL,
    caller_text        text             NOT NULL,
    agent_text         text             NOT NULL,
    prompt_tokens      integer          NOT NULL CHECK (prompt_tokens >= 0),
    completion_tokens  integer          NOT NULL CHECK (completion_tokens >= 0),
    stt_provider       text             NOT NULL,
    llm_provider       text             NOT NULL,
    tts_provider       text             NOT NULL,
    PRIMARY KEY (call_id, turn_no)
);
COMMENT ON TABLE turn IS 'one answer of the agent and its latency account';
COMMENT ON COLUMN turn.turn_latency_ms IS 'caller''s last speech sample received -> agent''s first audible sample sent; NULL when nothing was answered; the sum of all stages but playout';
COMMENT ON COLUMN turn.detect_ms IS 'last speech sample -> VAD knows of the silence';
COMMENT ON COLUMN turn.endpointing_ms IS 'VAD knows -> policy ends the turn';
COMMENT ON COLUMN turn.stt_ms IS 'end of turn -> the text that was used';
COMMENT ON COLUMN turn.llm_ms IS 'request -> first token';
COMMENT ON COLUMN turn.clause_ms IS 'first token -> first clause';
COMMENT ON COLUMN turn.tts_ms IS 'request -> first audio byte';
COMMENT ON COLUMN turn.own_ms IS 'what is neither detection, policy, provider nor playout';
COMMENT ON COLUMN turn.playout_ms IS 'first audible sample sent -> heard (mark); NULL when no mark came';
COMMENT ON COLUMN turn.interrupted IS 'the caller won the floor before the agent was done';
COMMENT ON COLUMN turn.caller_text IS 'final transcript that the turn answered';
COMMENT ON COLUMN turn.agent_text IS 'what the agent was to say; what was heard of it is in transcript_segment';
COMMENT ON COLUMN turn.prompt_tokens IS 'as the provider counted; 0 when it did not';
COMMENT ON COLUMN turn.completion_tokens IS 'as the provider counted; 0 when it did not';

CREATE TABLE IF NOT EXISTS transcript_segment (
    call_id      uuid    NOT NULL REFERENCES call ON DELETE CASCADE,
    seq          integer NOT NULL CHECK (seq >= 0),
    speaker      text    NOT NULL CHECK (speaker IN ('caller', 'agent')),
    text         text    NOT NULL,
    heard_text   text    NOT NULL,
    start_ms     bigint  NOT NULL CHECK (start_ms >= 0),
    end_ms       bigint  NOT NULL CHECK (end_ms >= start_ms),
    confidence   real    CHECK (confidence BETWEEN 0 AND 1),
    interrupted  boolean NOT NULL,
    PRIMARY KEY (call_id, seq)
);
COMMENT ON TABLE transcript_segment IS 'the transcript: one line of one side';
COMMENT ON COLUMN transcript_segment.seq IS 'order in the call';
COMMENT ON COLUMN transcript_segment.heard_text IS 'what of the text reached the caller; all of it for the caller''s own lines';
COMMENT ON COLUMN transcript_segment.start_ms IS 'media time from the start of the stream';
COMMENT ON COLUMN transcript_segment.confidence IS 'of the recogniser, 0 to 1; NULL for the agent and when not given';

CREATE TABLE IF NOT EXISTS tool_invocation (
    call_id      uuid             NOT NULL REFERENCES call ON DELETE CASCADE,
    tool_no      integer          NOT NULL CHECK (tool_no >= 1),
    name         text             NOT NULL,
    arguments    jsonb            NOT NULL CHECK (jsonb_typeof(arguments) = 'object'),
    started_at   timestamptz      NOT NULL,
    outcome      text             CHECK (outcome IN ('done', 'refused', 'rejected', 'failed', 'timeout', 'unreachable')),
    result       text,
    attempts     integer          CHECK (attempts >= 0),
    duration_ms  double precision CHECK (duration_ms >= 0),
    PRIMARY KEY (call_id, tool_no)
);
COMMENT ON TABLE tool_invocation IS 'one call of a tool; on the local disk before the tool was called';
COMMENT ON COLUMN tool_invocation.tool_no IS 'order in the call; with the call''s id it is the Idempotency-Key';
COMMENT ON COLUMN tool_invocation.arguments IS 'without those that the tool''s settings redact';
COMMENT ON COLUMN tool_invocation.outcome IS 'NULL: at work, or its process died and nobody knows whether it was done';
COMMENT ON COLUMN tool_invocation.result IS 'what the model was told, at most 4000 characters';

-- ── Spool ──────────────────────────────────────────────────────────────────────────────────────────────────────
-- A fact's key is (boot_id, seq). It takes effect in the transaction that moves shipped_seq past it: exactly once,
-- also when the reply to a COMMIT was lost or two processes ship the same spool.

CREATE TABLE IF NOT EXISTS spool_boot (
    boot_id      uuid        PRIMARY KEY,
    shipped_seq  bigint      NOT NULL DEFAULT 0 CHECK (shipped_seq >= 0),
    shipped_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE spool_boot IS 'how far the local spool of each process life has been copied; one row a life';
COMMENT ON COLUMN spool_boot.shipped_seq IS 'all facts up to this one are in the tables above, or in spool_quarantine';

CREATE TABLE IF NOT EXISTS spool_quarantine (
    boot_id         uuid        NOT NULL,
    seq             bigint      NOT NULL CHECK (seq >= 1),
    payload         bytea       NOT NULL,
    error           text        NOT NULL,
    quarantined_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (boot_id, seq)
);
COMMENT ON TABLE spool_quarantine IS 'facts that the database refused five times; page somebody when a row appears';
COMMENT ON COLUMN spool_quarantine.payload IS 'the record as it was spooled (JSON; server/store/fact.py)';
