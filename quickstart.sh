#!/bin/sh
# The whole pipeline on a CPU without a hub: set-up, stages 1 to 3 and the attack on the built-in
# miniature (MiniLM encoder, Rotten Tomatoes sentences), then a table.
#
#   sh quickstart.sh                  about ten minutes on two cores, installing included
#   PRESET=hour sh quickstart.sh      all 8,530 sentences
#
# Run again, it goes on where it was stopped, or says that all is done.
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
PRESET=${PRESET:-minutes}
case $PRESET in
    minutes)
        rows=1200 epochs=2 bsz=32 lr=2e-4 search_epochs=1 adv_steps=2 attacked_rows=60
        max_eval_rows=500 results=quickstart
        ;;
    hour)
        rows= epochs=3 bsz=32 lr=5e-5 search_epochs=6 adv_steps=3 attacked_rows=250
        max_eval_rows= results=quickstart-hour
        ;;
    *)
        echo "error: unknown PRESET '$PRESET'; known are minutes, hour" >&2
        exit 2
        ;;
esac

sh "$ROOT/scripts/setup.sh"

# Written last, with the settings of this script: what is done need not be looked through again.
done_file="$ROOT/runs/$results/all-done"
if [ -f "$done_file" ] && cmp -s "$0" "$done_file"; then
    cat "$ROOT/results/$results/table.md"
    echo "all is done: results/$results and runs/$results; remove the latter to start over"
    exit 0
fi

unset KINDS METHODS REINIT TAG SCORES_TAG PROTOCOL ATTACK_EPOCHS ROWS SCORE_WITH CHECKPOINT
export MODEL=builtin/minilm TASKS=builtin/rotten_tomatoes SEEDS=42 GPUS= DATA=
export PYTHON="$ROOT/.venv/bin/python" RUNS="$ROOT/runs/$results" RECIPES=textfooler-minilm
export MAX_TRAIN_ROWS=$rows MAX_EVAL_ROWS=$max_eval_rows NUM_EXAMPLES=$attacked_rows ATTACK=yes

EPOCHS=$epochs BSZ=$bsz LR=$lr sh "$ROOT/stage1-finetune.sh"
EPOCHS=$search_epochs ADV_STEPS=$adv_steps sh "$ROOT/stage2-search-ticket.sh"
EPOCHS=$epochs BSZ=$bsz LR=$lr KINDS="random robust" SPARSITIES=0.3 \
    sh "$ROOT/stage3-draw-retrain_ticket.sh"
"$PYTHON" "$ROOT/report.py" --records "$RUNS" --output_dir "$ROOT/results/$results" \
    --title "Quickstart: dense, random ticket, robust ticket"
cp "$0" "$done_file"
