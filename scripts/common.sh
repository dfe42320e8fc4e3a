# The stage scripts source this file, with `stage` and ATTACK set: checks, defaults, and functions
# that they share. scripts/variables.sh lists the variables that you can set.
ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$ROOT/scripts/variables.sh"

# check WHAT KNOWN GIVEN: every given word is a known one; checked before anything runs.
check() {
    for word in $3; do
        case " $2 " in
            *" $word "*) ;;
            *) fail "unknown $1 '$word'; known are $2" ;;
        esac
    done
}

# check_tasks: every word of TASKS is a known task, a data set OWNER/NAME of the hub or a folder.
check_tasks() {
    for word in $TASKS; do
        case $word in
            builtin/*) check task "$KNOWN_TASKS" "$word" ;;
            */*) echo "note: $word has no settings of its own; it takes those of sst2" >&2 ;;
            *) check task "$KNOWN_TASKS OWNER/NAME ./FOLDER" "$word" ;;
        esac
    done
}

KNOWN_TASKS="imdb ag_news sst2 qnli qqp mnli builtin/rotten_tomatoes builtin/imdb"
KNOWN_METHODS="plain freelb pgd infobert"
KNOWN_RECIPES="textfooler textbugger bertattack bertattack-released bae pwws deepwordbug \
textfooler-minilm textbugger-minilm textfooler-neighbours textfooler-use3"
refuse_carriage_returns PYTHON $(names_of) # each is a word
case $* in *"$carriage_return"*) fail "a flag contains a carriage return; remove it" ;; esac
if [ "$stage $ATTACK" = "2 yes" ]; then
    echo "note: stage 2 does not attack" >&2
    ATTACK=no
fi
check ATTACK "yes no" "$ATTACK"
check_variables "$stage" "$ATTACK"

find_python

MODEL=${MODEL:-bert-base-uncased}
DATA=${DATA:-}
SEEDS=${SEEDS:-42}
GPUS=${GPUS:-}
RUNS=${RUNS:-$ROOT/runs}
TAG=${TAG:-}
PRECISION=${PRECISION:-auto}
DEVIATIONS=${DEVIATIONS:-paper}
CHECKPOINT=${CHECKPOINT:-last}
ATTACK_PRESET=${ATTACK_PRESET:-balanced}
PROCESSES=${PROCESSES:-1}
# The three attacks of the paper; without a hub the one that needs packages only.
case $MODEL in
    builtin/*) RECIPES=${RECIPES:-textfooler-minilm} ;;
    *) RECIPES=${RECIPES:-bertattack textfooler textbugger} ;;
esac
check recipe "$KNOWN_RECIPES" "$RECIPES"

# Threads that wait without spinning: slightly slower alone, twice as fast next to another job.
OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
export OMP_WAIT_POLICY

if [ -n "$GPUS" ]; then
    CUDA_VISIBLE_DEVICES=$GPUS
    export CUDA_VISIBLE_DEVICES
fi

# train SCRIPT FLAGS...: on one device, or with one process on each of several GPUs.
train() {
    script=$1
    shift
    case $GPUS in
        *,*)
            count=$(printf '%s' "$GPUS" | tr ',' '\n' | wc -l)
            "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$((count + 1))" \
                "$ROOT/$script" "$@"
            ;;
        *) "$PYTHON" "$ROOT/$script" "$@" ;;
    esac
}

# train_on_task SCRIPT FLAGS...: train with the data of $task, $max_seq_length, $seed.
train_on_task() {
    script=$1
    shift
    train "$script" --task_name "$task" ${DATA:+--data_dir "$DATA"} \
        ${TEXT_COLUMNS:+--text_columns "$TEXT_COLUMNS"} \
        ${LABEL_COLUMN:+--label_column "$LABEL_COLUMN"} \
        ${TRAIN_SPLIT:+--train_split "$TRAIN_SPLIT"} ${TEST_SPLIT:+--test_split "$TEST_SPLIT"} \
        --max_seq_length "${MAX_SEQ_LENGTH:-$max_seq_length}" \
        ${MAX_TRAIN_ROWS:+--max_train_rows "$MAX_TRAIN_ROWS"} \
        ${MAX_EVAL_ROWS:+--max_eval_rows "$MAX_EVAL_ROWS"} \
        --seed "$seed" --precision "$PRECISION" --deviations "$DEVIATIONS" "$@"
}

# attempt WHAT COMMAND...: a failed command does not stop the others; `report_failures` lists it.
failures=
attempt() {
    what=$1
    shift
    status=0
    "$@" || status=$?
    [ "$status" -lt 128 ] || exit "$status" # a signal ends the script
    [ "$status" -eq 0 ] || failures="$failures
failed: $what (status $status)"
    return "$status"
}

# List all that the attacks lack, before anything runs. Runs that are not attacked are still made.
check_resources() {
    status=0
    "$PYTHON" "$ROOT/attack.py" --preset "$ATTACK_PRESET" --check $RECIPES \
        ${NEIGHBOURS:+--neighbours "$NEIGHBOURS"} ${WORD_VECTORS:+--word_vectors "$WORD_VECTORS"} \
        ${SENTENCE_ENCODER:+--sentence_encoder "$SENTENCE_ENCODER"} \
        ${MASKED_LM:+--masked_lm "$MASKED_LM"} >/dev/null || status=$?
    [ "$status" -lt 128 ] || exit "$status" # a signal
    [ "$status" -eq 0 ] || echo "note: these attacks will fail; everything else runs" >&2
}

# attack_run FOLDER DEFAULT_ROWS: run every recipe on one run; attacked rows are not repeated.
attack_run() {
    for recipe in $RECIPES; do
        attempt "$recipe on $1" \
            "$PYTHON" "$ROOT/attack.py" --model_name "$1" --checkpoint "$CHECKPOINT" \
            --recipe "$recipe" --num_examples "${NUM_EXAMPLES:-$2}" --processes "$PROCESSES" \
            --preset "$ATTACK_PRESET" ${COMPARED_WITH:+--compared_with $COMPARED_WITH} \
            ${ROW_CHOICE:+--row_choice "$ROW_CHOICE"} ${SCORE_WITH:+--score_with "$SCORE_WITH"} \
            ${TEMPERATURE:+--temperature "$TEMPERATURE"} \
            ${QUERY_BUDGET:+--query_budget "$QUERY_BUDGET"} \
            ${ATTACK_EPOCHS:+--attack_epochs "$ATTACK_EPOCHS"} \
            ${NEIGHBOURS:+--neighbours "$NEIGHBOURS"} \
            ${WORD_VECTORS:+--word_vectors "$WORD_VECTORS"} \
            ${SENTENCE_ENCODER:+--sentence_encoder "$SENTENCE_ENCODER"} \
            ${MASKED_LM:+--masked_lm "$MASKED_LM"} || :
    done
}

# Last line of a stage script: list what failed; exit with status 1 if anything did.
report_failures() {
    [ -n "$failures" ] || return 0
    echo "${failures#?}" >&2
    exit 1
}

# adversary_of METHOD: the flags of a training method on $task (ascent, initial size, bound, K). The
# authors of FreeLB state them for the GLUE tasks (their ALBERT runs). IMDB, AG News and the built-in
# data use those of SST-2 (our choice), and so does PGD. InfoBERT has its authors' for ANLI.
adversary_of() {
    case $task in
        qnli) freelb="0.05 0.1 0 3" ;;
        qqp) freelb="0.2 0.32 0.7 3" ;;
        mnli) freelb="0.04 0.08 0 3" ;;
        *) freelb="0.1 0.6 0 2" ;;
    esac
    case $1 in
        plain) return ;;
        freelb | pgd) set -- "$1" $freelb ;;
        infobert) set -- "$1" 0.04 0.08 0 3 ;;
    esac
    printf '%s' "--method $1 --adv_lr $2 --adv_init_mag $3 --adv_max_norm $4 --adv_steps $5"
}

# scores_of KIND: name of the run folder of a kind of scores.
scores_of() {
    case $1 in
        robust | no_adversary) printf 'search-%s' "$1" ;;
        *) printf 'scores-%s' "$1" ;;
    esac
}

# runs_of TASK SEED: folder of the runs of $MODEL. OWNER/NAME:CONFIG is one folder in it.
runs_of() {
    case " $KNOWN_TASKS " in
        *" $1 "*) of_task=$1 ;;
        *) of_task=$(printf '%s' "$1" | sed 's|^[./]*||; s|/*$||; s|[/:]|--|g') ;;
    esac
    printf '%s/%s/%s/seed%s' "$RUNS" "$(basename -- "$MODEL")" "$of_task" "$2"
}
