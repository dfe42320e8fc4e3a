#!/bin/sh
# The second half of the study (docs/analysis_plan.md): train and attack the runs of some phases.
#
#   sh scripts/second_half.sh 1                 phase 1; also 2, 2b, 3, 3b, 3c, or several
#   DRY_RUN=yes sh scripts/second_half.sh 1 2   print the commands
#
# DATA (default: data) holds sst2/{train,dev}.tsv and ag_news/{train,test}.tsv.gz, NEIGHBOURS the
# table of neighbors (docs/attacks.md). RUNS (default: runs/second-half) gets the run folders, RECORDS
# (default: results/study/second-half) a record per model. SEEDS: 11 12 13, unless set; phase 3c takes
# the first. TRAIN_ONLY=yes skips the attacks. The same command resumes.
. "$(dirname -- "$0")/line_endings.sh" #
set -eu
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$ROOT/scripts/variables.sh"
refuse_carriage_returns PYTHON DATA RUNS RECORDS SEEDS NEIGHBOURS DRY_RUN TRAIN_ONLY
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
DATA=${DATA:-data}
RUNS=${RUNS:-runs/second-half}
RECORDS=${RECORDS:-$ROOT/results/study/second-half}
SEEDS=${SEEDS:-11 12 13}
MODEL=builtin/minilm
[ $# -gt 0 ] || { sed -n 2,10p "$0"; exit 2; }

# do_or_show COMMAND...: run a command, or print it with DRY_RUN.
do_or_show() {
    if [ "${DRY_RUN:-no}" = yes ]; then
        echo "$@"
    else
        "$@"
    fi
}

# stage NUMBER VARIABLES...: a stage script with the study's settings; it skips finished runs.
stage() {
    script=$(cd "$ROOT" && ls stage"$1"-*.sh)
    lr='LR=5e-5'
    [ "$1" != 2 ] || lr='' # the search has a learning rate of its own
    shift
    # $lr and $rows hold several words, or none.
    do_or_show env -u NEIGHBOURS MODEL=$MODEL TASKS="$task" SEEDS="$seed" RUNS="$RUNS" \
        PYTHON="$PYTHON" ${task_data:+DATA="$task_data"} $lr ATTACK=no $rows "$@" sh "$ROOT/$script"
}

# retrain NAME TICKET FLAGS...: retrain a ticket from its file.
retrain() {
    name=$1 file=$2
    shift 2
    do_or_show "$PYTHON" "$ROOT/retrain_ticket.py" --model_name $MODEL --ticket "$file" \
        --task_name "$task" ${task_data:+--data_dir "$task_data"} --max_seq_length "$length" \
        --seed "$seed" --epochs 10 --lr 5e-5 --bsz 32 --weight_decay 1e-2 \
        --output_dir "$base/$name" "$@"
}

# attack NAME...: the suite on each of these models of $task and $seed. Then each attacked model of
# the seed gets the texts that were found on the others.
attack() {
    [ "${TRAIN_ONLY:-no}" = no ] || return 0
    for name in "$@"; do # an attacked model is attacked further below
        [ -n "$(ls "$base/$name"/suites/*/summary.json 2>/dev/null)" ] || suite "$name"
    done
    for name in $(attacked "$@"); do
        suite "$name" --carry_over "$base"/*/suites/*
    done
}

# attacked NAME...: the attacked runs of $task and $seed; with DRY_RUN, these as well.
attacked() {
    {
        [ "${DRY_RUN:-no}" = no ] || printf '%s\n' "$@"
        for folder in "$base"/*/suites; do
            [ ! -d "$folder" ] || basename "$(dirname "$folder")"
        done
    } | sort -u
}

# suite NAME FLAGS...: the suite on one model; finished parts are not repeated.
suite() {
    model=$1
    shift
    do_or_show "$PYTHON" "$ROOT/attack.py" --model_name "$base/$model" --suite standard \
        --num_examples 300 --new_rows_after 200 --dev_examples 200 \
        --neighbours "$NEIGHBOURS" --result_file "$RECORDS/$model.jsonl" "$@"
}

# sweep NAME...: TextFooler's search on these models at several temperatures, which with more than two
# classes can change the order of candidates.
sweep() {
    [ "${TRAIN_ONLY:-no}" = no ] || return 0
    for name in "$@"; do
        do_or_show "$PYTHON" "$ROOT/attack.py" --model_name "$base/$name" \
            --recipe textfooler-neighbours --temperature 1,sweep \
            --num_examples 300 --new_rows_after 200 \
            --neighbours "$NEIGHBOURS" --result_file "$RECORDS/temperatures.jsonl"
    done
}

# on TASK: its data, its committed ticket of $seed, and the folder of its runs.
on() {
    task=$1 task_data='' rows=''
    base=$RUNS/minilm/$task/seed$seed
    case $task in
        sst2) task_data=$DATA/sst2 length=128 ;;
        builtin/rotten_tomatoes) length=64 ;;
        ag_news) task_data=$DATA/ag_news length=128 rows="MAX_TRAIN_ROWS=6000 MAX_SEQ_LENGTH=128" ;;
    esac
    # The committed tickets have seeds 1 to 3, and "-" for "/" in the name of a task.
    mask=$(((seed - 11) % 3 + 1))
    ticket=$ROOT/results/study/tickets/$(echo "$task" | tr / -)-seed$mask-robust-0.3.safetensors
}

for phase in "$@"; do
    case $phase in
        1 | 2 | 2b | 3 | 3b | 3c) ;;
        *) fail "unknown phase '$phase'; known are 1, 2, 2b, 3, 3b, 3c" ;;
    esac
done
[ "${TRAIN_ONLY:-no}" = yes ] || [ -n "${NEIGHBOURS:-}" ] ||
    fail "set NEIGHBOURS to the table of neighbors (docs/attacks.md), or TRAIN_ONLY=yes"

for phase in "$@"; do
    for seed in $SEEDS; do
        case $phase in
            1)
                for name in sst2 builtin/rotten_tomatoes; do
                    on $name
                    retrain ticket-robust-0.3 "$ticket"
                    stage 1 EPOCHS=19 TAG=-epochs19
                    attack ticket-robust-0.3 dense-epochs19
                done
                ;;
            2)
                on sst2
                stage 1 EPOCHS=3
                stage 2 KINDS="robust no_adversary" SEARCH_EPOCHS=6 ADV_STEPS=3
                stage 3 KINDS="no_adversary random_matched magnitude" SPARSITIES=0.3 EPOCHS=10
                attack ticket-no_adversary-0.3 ticket-random_matched-0.3 ticket-magnitude-0.3
                ;;
            2b)
                on sst2
                retrain ticket-not_held-0.3 "$ticket" --reinitialise rest --reinit_std 1e-8
                stage 1 METHODS=freelb EPOCHS=10 TAG=-epochs10
                attack ticket-not_held-0.3 dense-freelb-epochs10
                ;;
            3)
                on ag_news
                stage 1 EPOCHS=3
                stage 1 EPOCHS=19 TAG=-epochs19
                stage 2 KINDS="robust no_adversary" SEARCH_EPOCHS=6 ADV_STEPS=3
                stage 3 KINDS="robust no_adversary random_matched" SPARSITIES=0.3 EPOCHS=10
                models='dense-epochs19 ticket-robust-0.3 ticket-no_adversary-0.3
                    ticket-random_matched-0.3'
                attack $models
                sweep $models
                ;;
            3b)
                on sst2
                retrain ticket-ag_news-0.3 "$RUNS/minilm/ag_news/seed$seed/ticket-robust-0.3"
                attack ticket-ag_news-0.3
                ;;
            3c) # check in its log.jsonl that R(m) comes to 0.7 or less
                [ "$seed" = "$(printf '%s\n' $SEEDS | head -n 1)" ] || continue
                on sst2
                stage 1 EPOCHS=3
                stage 2 KINDS=robust SEARCH_EPOCHS=20 ADV_STEPS=3 LAMBDA=2 TAG=-long
                stage 3 KINDS=robust SPARSITIES=0.3 EPOCHS=10 SCORES_TAG=-long TAG=-long
                attack ticket-robust-0.3-long
                ;;
        esac
    done
done
