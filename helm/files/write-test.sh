# What each pod of the write test runs: the first makes the dataset, all write it, the first checks it.
set -eu
first() { [ "${JOB_COMPLETION_INDEX:-0}" = 0 ]; }
on() { verb=$1; shift; cropduster bench hsds "$verb" "$DOMAIN" --target "$TARGET" "$@"; }
if first; then
    on create --rows "$ROWS" --columns "$COLUMNS" --chunk "$CHUNK" --tasks "$TASKS"
fi
until on status > /dev/null 2>&1; do sleep 2; done
on write --writers "$WRITERS" -v
if first; then
    on status --verify
fi
