-- A dump of the first released schema, with an account, a room and a message in each state: pg_dump --inserts.
SELECT pg_catalog.set_config('search_path', '', false);
CREATE TABLE public.aerich (
    id integer NOT NULL,
    version character varying(255) NOT NULL,
    app character varying(100) NOT NULL,
    content jsonb NOT NULL
);
CREATE SEQUENCE public.aerich_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.aerich_id_seq OWNED BY public.aerich.id;
CREATE TABLE public.allowances (
    day date NOT NULL,
    used integer NOT NULL,
    in_flight integer NOT NULL,
    minute_from timestamp with time zone NOT NULL,
    minute_used integer NOT NULL,
    user_id uuid NOT NULL
);
CREATE TABLE public.chatrooms (
    id uuid NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    user_id uuid NOT NULL
);
CREATE TABLE public.idempotency_keys (
    id bigint NOT NULL,
    scope text NOT NULL,
    key text NOT NULL,
    body_hash bytea NOT NULL,
    resource_id uuid NOT NULL,
    busy_until timestamp with time zone NOT NULL,
    status integer,
    reply bytea,
    created_at timestamp with time zone NOT NULL
);
CREATE SEQUENCE public.idempotency_keys_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.idempotency_keys_id_seq OWNED BY public.idempotency_keys.id;
CREATE TABLE public.messages (
    id uuid NOT NULL,
    input text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    status character varying(16) NOT NULL,
    response text,
    finish_reason text,
    input_tokens integer,
    output_tokens integer,
    error_code text,
    error_detail text,
    attempt integer NOT NULL,
    failures integer NOT NULL,
    deaths integer NOT NULL,
    allowance_day date NOT NULL,
    charged boolean NOT NULL,
    queued_at timestamp with time zone NOT NULL,
    max_output_tokens integer NOT NULL,
    completed_at timestamp with time zone,
    due_at timestamp with time zone NOT NULL,
    lease_until timestamp with time zone,
    rung_at timestamp with time zone NOT NULL,
    chatroom_id uuid NOT NULL,
    user_id uuid NOT NULL
);
CREATE TABLE public.model_budget (
    id integer NOT NULL,
    booked_until timestamp with time zone NOT NULL
);
CREATE TABLE public.otp_challenges (
    id bigint NOT NULL,
    mobile character varying(16) NOT NULL,
    purpose character varying(16) NOT NULL,
    code_hash text NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    guesses_left integer NOT NULL
);
CREATE SEQUENCE public.otp_challenges_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.otp_challenges_id_seq OWNED BY public.otp_challenges.id;
CREATE TABLE public.sessions (
    id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    user_id uuid NOT NULL
);
CREATE TABLE public.users (
    id uuid NOT NULL,
    mobile character varying(16) NOT NULL,
    name text NOT NULL,
    password_hash text,
    tier character varying(16) NOT NULL,
    chatrooms_version bigint NOT NULL,
    created_at timestamp with time zone NOT NULL
);
ALTER TABLE ONLY public.aerich ALTER COLUMN id SET DEFAULT nextval('public.aerich_id_seq'::regclass);
ALTER TABLE ONLY public.idempotency_keys ALTER COLUMN id SET DEFAULT nextval('public.idempotency_keys_id_seq'::regclass);
ALTER TABLE ONLY public.otp_challenges ALTER COLUMN id SET DEFAULT nextval('public.otp_challenges_id_seq'::regclass);
INSERT INTO public.aerich VALUES (1, '0_20261122150355_init.py', 'models', '{}');
INSERT INTO public.allowances VALUES ('2026-11-20', 4, 2, '2026-11-20 10:00:00+00', 4, '904b4f16-e1a4-4985-b408-d3d0f83ac882');
INSERT INTO public.chatrooms VALUES ('a8549183-5587-4e20-97a7-abb76716a92d', 'room', '2026-11-20 10:00:00+00', '904b4f16-e1a4-4985-b408-d3d0f83ac882');
INSERT INTO public.messages VALUES ('9a45249d-7ae1-4337-92be-0b766037a9b6', 'input', '2026-11-20 10:00:00+00', 'completed', 'response', NULL, NULL, NULL, NULL, NULL, 1, 0, 0, '2026-11-20', true, '2026-11-20 10:00:00+00', 10, NULL, '2026-11-20 10:00:00+00', '2026-11-20 10:00:00+00', '2026-11-20 10:00:00+00', 'a8549183-5587-4e20-97a7-abb76716a92d', '904b4f16-e1a4-4985-b408-d3d0f83ac882');
INSERT INTO public.messages VALUES ('91ba6ecb-7c63-473c-bf6d-616fc48fd8cc', 'input', '2026-11-20 10:00:00+00', 'failed', 'response', NULL, NULL, NULL, NULL, NULL, 1, 0, 0, '2026-11-20', true, '2026-11-20 10:00:00+00', 10, NULL, '2026-11-20 10:00:00+00', '2026-11-20 10:00:00+00', '2026-11-20 10:00:00+00', 'a8549183-5587-4e20-97a7-abb76716a92d', '904b4f16-e1a4-4985-b408-d3d0f83ac882');
INSERT INTO public.messages VALUES ('9c45ea4b-7d6f-43ee-9ebd-1b4e948a516f', 'input', '2026-11-20 10:00:00+00', 'queued', NULL, NULL, NULL, NULL, NULL, NULL, 1, 0, 0, '2026-11-20', true, '2026-11-20 10:00:00+00', 10, NULL, '2026-11-20 10:00:00+00', '2026-11-20 10:00:00+00', '2026-11-20 10:00:00+00', 'a8549183-5587-4e20-97a7-abb76716a92d', '904b4f16-e1a4-4985-b408-d3d0f83ac882');
INSERT INTO public.messages VALUES ('dbdbc80e-54df-44f5-aa2d-0bc9ea55702d', 'input', '2026-11-20 10:00:00+00', 'generating', NULL, NULL, NULL, NULL, NULL, NULL, 1, 0, 0, '2026-11-20', true, '2026-11-20 10:00:00+00', 10, NULL, '2026-11-20 10:00:00+00', '2026-11-20 10:00:00+00', '2026-11-20 10:00:00+00', 'a8549183-5587-4e20-97a7-abb76716a92d', '904b4f16-e1a4-4985-b408-d3d0f83ac882');
INSERT INTO public.users VALUES ('904b4f16-e1a4-4985-b408-d3d0f83ac882', '+919876543210', 'Ann', NULL, 'Basic', 1, '2026-11-20 10:00:00+00');
SELECT pg_catalog.setval('public.aerich_id_seq', 1, true);
SELECT pg_catalog.setval('public.idempotency_keys_id_seq', 1, false);
SELECT pg_catalog.setval('public.otp_challenges_id_seq', 1, false);
ALTER TABLE ONLY public.aerich
    ADD CONSTRAINT aerich_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.allowances
    ADD CONSTRAINT allowances_pkey PRIMARY KEY (user_id);
ALTER TABLE ONLY public.chatrooms
    ADD CONSTRAINT chatrooms_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.model_budget
    ADD CONSTRAINT model_budget_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.otp_challenges
    ADD CONSTRAINT otp_challenges_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT uid_idempotency_scope_0666a8 UNIQUE (scope, key);
ALTER TABLE ONLY public.otp_challenges
    ADD CONSTRAINT uid_otp_challen_mobile_615895 UNIQUE (mobile, purpose);
ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_mobile_key UNIQUE (mobile);
ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);
CREATE INDEX idx_chatrooms_user_id_13e4c3 ON public.chatrooms USING btree (user_id, id);
CREATE INDEX idx_idempotency_created_944834 ON public.idempotency_keys USING btree (created_at);
CREATE INDEX idx_messages_chatroo_b46e6c ON public.messages USING btree (chatroom_id, id);
CREATE INDEX idx_messages_user_id_683af4 ON public.messages USING btree (user_id, id);
CREATE INDEX idx_sessions_user_id_80072d ON public.sessions USING btree (user_id);
CREATE INDEX messages_failed ON public.messages USING btree (id) WHERE ((status)::text = 'failed'::text);
CREATE INDEX messages_generating ON public.messages USING btree (lease_until) WHERE ((status)::text = 'generating'::text);
CREATE INDEX messages_queued ON public.messages USING btree (due_at) WHERE ((status)::text = 'queued'::text);
ALTER TABLE ONLY public.allowances
    ADD CONSTRAINT allowances_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.chatrooms
    ADD CONSTRAINT chatrooms_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_chatroom_id_fkey FOREIGN KEY (chatroom_id) REFERENCES public.chatrooms(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
