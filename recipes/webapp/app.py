"""A guest book: one table in PostgreSQL, three routes."""

import os

import flask
import psycopg2

app = flask.Flask(__name__)


def query(sql, *values):
    """Run one statement in its own transaction; rows come back as a list of tuples."""
    with psycopg2.connect(os.environ["DATABASE"]) as connection:
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []


query("CREATE TABLE IF NOT EXISTS notes (id serial PRIMARY KEY, at timestamptz DEFAULT now(), text text NOT NULL)")

PAGE = """<!doctype html>
<meta charset="utf-8"><title>Guest book</title>
<h1>Guest book</h1>
<form method="post" action="/notes"><input name="text" maxlength="500" required autofocus> <button>Sign</button></form>
<ul>{% for at, text in notes %}<li><time>{{ at.strftime("%Y-%m-%d %H:%M") }}</time> {{ text }}</li>{% endfor %}</ul>
"""


@app.get("/")
def index():
    return flask.render_template_string(PAGE, notes=query("SELECT at, text FROM notes ORDER BY id DESC LIMIT 100"))


@app.get("/notes")
def notes():
    return flask.jsonify([text for (text,) in query("SELECT text FROM notes ORDER BY id")])


@app.post("/notes")
def sign():
    text = (flask.request.form.get("text") or "").strip()[:500]
    if not text:
        flask.abort(400, "a note needs text")
    query("INSERT INTO notes (text) VALUES (%s)", text)
    return flask.redirect("/", code=303)


@app.get("/healthz")
def healthz():
    ((version,),) = query("SHOW server_version")
    ((count,),) = query("SELECT count(*) FROM notes")
    return flask.jsonify(database="postgresql", version=version, notes=count)
