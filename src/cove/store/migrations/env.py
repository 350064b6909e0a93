"""Run by alembic: migrates the connection that `cove.store.migrate` hands over."""

from alembic import context

from cove.store.schema import METADATA


def run() -> None:
    """Run the migrations inside the caller's transaction."""
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


run()
