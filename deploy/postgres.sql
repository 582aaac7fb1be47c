-- Compose's Postgres runs this once, when it makes the database `gemini`: the product's role owns it without being a superuser.
-- The superuser has no password afterwards: docker compose exec postgres psql --username postgres
\getenv password POSTGRES_PASSWORD
CREATE ROLE gemini LOGIN PASSWORD :'password';
ALTER DATABASE gemini OWNER TO gemini;
ALTER ROLE postgres PASSWORD NULL;
