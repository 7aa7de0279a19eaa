


SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;


CREATE TABLE public._sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);



CREATE TABLE public.events (
    epoch bigint NOT NULL,
    at bigint NOT NULL,
    who text NOT NULL,
    action text NOT NULL,
    model text NOT NULL,
    version text,
    reason text,
    experiment text
);



CREATE TABLE public.experiment_counts (
    experiment text NOT NULL,
    phase bigint NOT NULL,
    process text NOT NULL,
    counts text NOT NULL,
    users text NOT NULL,
    at bigint NOT NULL
);



CREATE TABLE public.experiment_decisions (
    experiment text NOT NULL,
    phase bigint NOT NULL,
    arm text NOT NULL,
    better bigint NOT NULL,
    sentence text NOT NULL,
    at bigint NOT NULL
);



CREATE TABLE public.experiments (
    name text NOT NULL,
    revision bigint NOT NULL,
    record text NOT NULL
);



CREATE TABLE public.feedback (
    id text NOT NULL,
    made bigint NOT NULL,
    model text NOT NULL,
    version text NOT NULL,
    arm text NOT NULL,
    predicted text NOT NULL,
    confidence double precision NOT NULL,
    actual text NOT NULL,
    correct bigint NOT NULL,
    content text,
    who text NOT NULL,
    told bigint NOT NULL,
    bin bigint
);



CREATE TABLE public.feedback_earlier (
    id text NOT NULL,
    told bigint NOT NULL,
    actual text NOT NULL,
    who text NOT NULL
);



CREATE TABLE public.models (
    name text NOT NULL,
    revision bigint NOT NULL,
    active text,
    earlier text NOT NULL,
    followed text
);



CREATE TABLE public.registry (
    id bigint NOT NULL,
    epoch bigint NOT NULL
);



CREATE TABLE public.requests (
    request_key text NOT NULL,
    request text NOT NULL,
    answer text NOT NULL,
    at bigint NOT NULL
);



CREATE TABLE public.versions (
    model text NOT NULL,
    version text NOT NULL,
    origin text NOT NULL,
    files text NOT NULL,
    metadata text NOT NULL,
    metrics text NOT NULL,
    pinned bigint NOT NULL,
    registered_at bigint NOT NULL
);



INSERT INTO public._sqlx_migrations VALUES (1, 'models', '2026-11-30 08:16:20.937979+00', true, '\x5d4e6a574f36154570a5c87c156e67651f25086283ddce0938acbdab06e23e89a3473952da8d810b89961e1e4a891aa5', 22022738);
INSERT INTO public._sqlx_migrations VALUES (2, 'feedback', '2026-11-30 08:16:20.960705+00', true, '\x815ea44519f10f1f468dee3dadd5adf3ef74dafc575ddf6b657adf364f2b7b73e24a06579cf14fb2909ac5ffcc704392', 11506620);
INSERT INTO public._sqlx_migrations VALUES (3, 'experiments', '2026-11-30 08:16:20.972475+00', true, '\xffdc75cc36c7d767ac5f225711589c45ff70bd9b00b8874cabc57b87ff0d7abdab385a727d46be4cf651a67dff3079d6', 16159725);
INSERT INTO public._sqlx_migrations VALUES (4, 'recent feedback', '2026-11-30 08:16:20.988982+00', true, '\x007c04ef6d1cc48eb8fa21967633a1eedcd294a33b8e1cf138d20327c72f3b329aaa1124b03444c1353ee2d34c4960ec', 1836018);
INSERT INTO public._sqlx_migrations VALUES (5, 'old feedback', '2026-11-30 08:16:20.991206+00', true, '\xd275615b907e77b90e3d42a89fbbe77e62cdf4fdcfdd31167dfe36f4dcd6dfcdd51695f3b646a4e3deabab1848140988', 1707027);



INSERT INTO public.events VALUES (1, 1796026581009, 'start', 'find', 'm', NULL, NULL, NULL);
INSERT INTO public.events VALUES (2, 1796026581062, 'start', 'activate', 'm', '1', NULL, NULL);
INSERT INTO public.events VALUES (3, 1796026581143, 'key admin', 'register', 'm', '2', NULL, NULL);
INSERT INTO public.events VALUES (4, 1796026581168, 'key admin', 'measure', 'm', '2', NULL, NULL);
INSERT INTO public.events VALUES (5, 1796026581217, 'key admin', 'activate', 'm', '2', NULL, NULL);
INSERT INTO public.events VALUES (6, 1796026581238, 'key admin', 'design', 'm', NULL, NULL, 'e');
INSERT INTO public.events VALUES (7, 1796026581253, 'key admin', 'start', 'm', NULL, NULL, 'e');



INSERT INTO public.experiment_counts VALUES ('e', 1, '01a22b86c10877d29584d75e8b42196d', '[{"old":{"requests":2,"texts":2,"anonymous":0,"failed":{},"left":0,"latencies":{"18":1,"21":1}}},{}]', 'LNnIeyMWU9UA', 1796026581271);






INSERT INTO public.experiments VALUES ('e', 2, '{"revision":2,"design":{"on":"m","arms":[{"name":"old","model":"m","version":"1","weight":0.5,"shadow":false},{"name":"new","model":"m","version":"2","weight":0.5,"shadow":false}],"control":"old","salt":"e","anonymous":"random","aim":{"accuracy":0.9,"least":0.03,"alpha":0.05,"power":0.9},"rollout":null},"state":"running","phases":[{"began":1796026581253,"weights":[0.5,0.5]}],"created":1796026581237,"started":1796026581253,"ended":null,"outcome":null}');



INSERT INTO public.feedback VALUES ('01a22b86c10d703496caa181d0d7f99b', 1796026581261, 'm', '1', 'e/1/old', '["a"]', 0.740774929523468, '["a"]', 1, '60', 'key predict', 1796026581263585, 11);






INSERT INTO public.models VALUES ('m', 5, '2', '["1"]', NULL);



INSERT INTO public.registry VALUES (1, 7);



INSERT INTO public.requests VALUES ('01a22b86-c074-7670-a6ed-0b28bbb3ad17', '28837a629abf9c2c139e16a55fe0f5d4decb5efb995355944bc7e633132dd502', '[3,"1",null]', 1796026581143);
INSERT INTO public.requests VALUES ('01a22b86-c0ac-71ac-a280-d78cacb8ff9a', '3a3862617cbdf76adadf30405c55d2dd7c40fc0651eb9b14a498fb097b523978', '[4,"1",null]', 1796026581169);
INSERT INTO public.requests VALUES ('01a22b86-c0ca-7a8d-bdd2-7b04e25d638b', '7ddeb4922cee650456f1521e229fa79f236fac944385326e256a1b3244d948e1', '[5,"2","1"]', 1796026581217);
INSERT INTO public.requests VALUES ('01a22b86-c0f3-73ff-9baf-098b55e430c6', 'd11ca849d048a785873ef3ccec33fd5483520e442da4a6f197e172341551a53c', '{"revision":1,"design":{"on":"m","arms":[{"name":"old","model":"m","version":"1","weight":0.5,"shadow":false},{"name":"new","model":"m","version":"2","weight":0.5,"shadow":false}],"control":"old","salt":"e","anonymous":"random","aim":{"accuracy":0.9,"least":0.03,"alpha":0.05,"power":0.9},"rollout":null},"state":"draft","phases":[],"created":1796026581237,"started":null,"ended":null,"outcome":null}', 1796026581238);
INSERT INTO public.requests VALUES ('01a22b86-c0f9-7c51-ae34-66c25281a1de', '5c106722b6afb447a1c240b6c329561b4e77a0c9acc9c1fea180de271e053d92', '{"revision":2,"design":{"on":"m","arms":[{"name":"old","model":"m","version":"1","weight":0.5,"shadow":false},{"name":"new","model":"m","version":"2","weight":0.5,"shadow":false}],"control":"old","salt":"e","anonymous":"random","aim":{"accuracy":0.9,"least":0.03,"alpha":0.05,"power":0.9},"rollout":null},"state":"running","phases":[{"began":1796026581253,"weights":[0.5,0.5]}],"created":1796026581237,"started":1796026581253,"ended":null,"outcome":null}', 1796026581253);



INSERT INTO public.versions VALUES ('m', '1', '"directory"', '[]', '{}', '{}', 1, 1796026581008);
INSERT INTO public.versions VALUES ('m', '2', '"upload"', '[{"path":"config.json","bytes":30,"sha256":"07dd5aad099eaba275b4ccbed40ac358b66f27492d303d9c4cac03ea9bedd496"},{"path":"golden.json","bytes":87,"sha256":"b850af98bdb4cadb620f3c3633dc5ce388b5b0aff4d331b44abf1ca07f6f214a"},{"path":"model.onnx","bytes":938,"sha256":"7333c74abf6c2b89404ca982bb2849d36939eebc4482b9bda579f08e06856793"},{"path":"model.toml","bytes":86,"sha256":"7d39b88fab92197f1398888deb57315edbc41c61144a1f88f89e135dbe0d0ad1"},{"path":"profile.json","bytes":822,"sha256":"822bdb839bc0d116baa7764f7c70ff206c839d29ec2093fddb2c7737488f843e"},{"path":"tokenizer.json","bytes":1983,"sha256":"aa98a78b2d98efa8a672a85a56f1d02fe06e7774c61004d79d162dc6036414fb"}]', '{}', '{"f1":0.5}', 0, 1796026581109);



ALTER TABLE ONLY public._sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);



ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (epoch);



ALTER TABLE ONLY public.experiment_counts
    ADD CONSTRAINT experiment_counts_pkey PRIMARY KEY (experiment, phase, process);



ALTER TABLE ONLY public.experiment_decisions
    ADD CONSTRAINT experiment_decisions_pkey PRIMARY KEY (experiment, phase, arm);



ALTER TABLE ONLY public.experiments
    ADD CONSTRAINT experiments_pkey PRIMARY KEY (name);



ALTER TABLE ONLY public.feedback_earlier
    ADD CONSTRAINT feedback_earlier_pkey PRIMARY KEY (id, told);



ALTER TABLE ONLY public.feedback
    ADD CONSTRAINT feedback_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.models
    ADD CONSTRAINT models_pkey PRIMARY KEY (name);



ALTER TABLE ONLY public.registry
    ADD CONSTRAINT registry_pkey PRIMARY KEY (id);



ALTER TABLE ONLY public.requests
    ADD CONSTRAINT requests_pkey PRIMARY KEY (request_key);



ALTER TABLE ONLY public.versions
    ADD CONSTRAINT versions_pkey PRIMARY KEY (model, version);



CREATE INDEX events_of_a_model ON public.events USING btree (model, epoch);



CREATE INDEX events_of_an_experiment ON public.events USING btree (experiment, epoch);



CREATE INDEX feedback_earlier_in_order ON public.feedback_earlier USING btree (told);



CREATE INDEX feedback_in_order ON public.feedback USING btree (told, id);



CREATE INDEX feedback_of_a_version ON public.feedback USING btree (model, version, arm);



CREATE INDEX feedback_of_a_version_by_time ON public.feedback USING btree (model, version, made);



CREATE INDEX feedback_of_an_arm ON public.feedback USING btree (arm) WHERE (arm <> ''::text);



ALTER TABLE ONLY public.versions
    ADD CONSTRAINT versions_model_fkey FOREIGN KEY (model) REFERENCES public.models(name);



