#!/bin/sh
# Run the whole pipeline on a CPU without a hub: installation, stages 1 to 3 and the attack on
# built-in parts (MiniLM encoder, Rotten Tomatoes sentences), then a table.
#
#   sh quickstart.sh                  about ten minutes on two cores, with the installation
#   PRESET=hour sh quickstart.sh      about an hour: all sentences and the study's search, one seed
#
# If it was interrupted, the same command resumes it.
. "$(dirname -- "$0")/scripts/line_endings.sh" #
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$ROOT/scripts/variables.sh"
refuse_carriage_returns PRESET
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
        fail "unknown PRESET '$PRESET'; known are minutes, hour"
        ;;
esac

# Say what the table is, so that nobody reads it as a result.
explain() {
    if [ "$PRESET" = minutes ]; then
        cat <<END

This was a check that everything works, not a result: one search epoch on 1,200 sentences finds no
robust ticket, so the table above does not compare dense models and tickets. docs/study.md does.
  .venv/bin/python report.py --make study --scale study --records results/study/study-records.jsonl \\
      --output_dir results/study-again     makes its tables again from the recorded runs, in a minute
  PRESET=hour sh quickstart.sh             runs the study's search with one seed, in about an hour
END
    else
        cat <<END

This was the study's search with one seed, one attack, and 3 epochs of retraining. Compare Aua by
class: the study's gain is in one class. A table like this one decides nothing. docs/study.md has three
seeds, 10 epochs and matched dense models; docs/study_details.md has this table as measured.
END
    fi
}

sh "$ROOT/scripts/setup.sh"

# The last command copies this script, with its settings, to done_file.
done_file="$ROOT/runs/$results/all-done"
if [ -f "$done_file" ] && cmp -s "$0" "$done_file"; then
    cat "$ROOT/results/$results/table.md"
    explain
    echo "everything is done: results/$results, runs/$results; delete runs/$results to start over"
    exit 0
fi

# Settings of the caller's shell must not change the result.
for name in $(names_of); do
    unset "$name" $(misspelled_as "$name") # each is a word
done
export MODEL=builtin/minilm TASKS=builtin/rotten_tomatoes SEEDS=42
export PYTHON="$ROOT/.venv/bin/python" RUNS="$ROOT/runs/$results"
export MAX_TRAIN_ROWS=$rows MAX_EVAL_ROWS=$max_eval_rows

training="EPOCHS=$epochs BSZ=$bsz LR=$lr"
attack="RECIPES=textfooler-minilm NUM_EXAMPLES=$attacked_rows"
env $training $attack ATTACK=yes sh "$ROOT/stage1-finetune.sh"
env SEARCH_EPOCHS="$search_epochs" ADV_STEPS="$adv_steps" sh "$ROOT/stage2-search-ticket.sh"
env $training $attack KINDS="random robust" SPARSITIES=0.3 sh "$ROOT/stage3-draw-retrain_ticket.sh"
"$PYTHON" "$ROOT/report.py" --records "$RUNS" --output_dir "$ROOT/results/$results" \
    --title "Quickstart: dense, random ticket, robust ticket"
explain
cp "$0" "$done_file"
