# Environment variables of the stage scripts: name, stages that read it, meaning.
# "1a" and "3a": the stage reads the variable when it attacks.
VARIABLES='
TASKS             1 2 3   tasks, such as "imdb ag_news sst2" (default), OWNER/NAME[:CONFIG], ./FOLDER
SEEDS             1 2 3   seeds, such as "1 2 3" (default: 42)
MODEL             1 2 3   hub name, local folder, or builtin/minilm (default: bert-base-uncased)
DATA              1 2 3   folder with {train,dev,test} files instead of the hub
TEXT_COLUMNS      1 2 3   one or two text columns of the data, with a comma
LABEL_COLUMN      1 2 3   label column of the data
TRAIN_SPLIT       1 2 3   training split of a data set (default: train)
TEST_SPLIT        1 2 3   test split of a data set (default: test or validation)
RUNS              1 2 3   folder of all runs (default: runs)
TAG               1 2 3   appended to the names of the run folders that the stage makes
GPUS              1 2 3   CUDA ids, such as 0 or 0,1 (default: all visible)
PRECISION         1 2 3   auto (default), bf16 or fp32
DEVIATIONS        1 2 3   paper (default), or released: the choices of the released code
MAX_SEQ_LENGTH    1 2 3   maximum length of a text in tokens
MAX_TRAIN_ROWS    1 2 3   maximum number of training rows
MAX_EVAL_ROWS     1 2 3   maximum number of dev rows and of test rows
BSZ               1 2 3   rows per optimizer step
METHODS           1       plain (default), freelb, pgd, infobert
STOP_AT_LOSS      1       training loss at which training ends: a number, or the run of a ticket
EPOCHS            1 3     training epochs
LR                1 3     peak learning rate
WEIGHT_DECAY      1 3     weight decay
KINDS             2 3     kinds of scores (default: robust)
SEARCH_EPOCHS     2       epochs of the search
MASK_LR           2       learning rate of the scores
LAMBDA            2       weight of the penalty R(m)
ADV_STEPS         2       K, gradient passes per optimizer step (0: no adversary)
ADV_LR            2       eta, size of an ascent
ADV_INIT          2       eps_0, size of the first perturbation
IMP_SPARSITY      2       sparsity at which iterative pruning ends
IMP_SHARE         2       fraction of the weights that each round removes
IMP_EPOCHS        2       epochs per round
IMP_LR            2       peak learning rate of a round
SPARSITIES        3       fractions of the weights that the tickets remove
REINIT            3       weights that start from noise: nothing (default), ticket, rest
SCORES_TAG        3       TAG with which stage 2 made the scores
ATTACK            1 2 3   attack what was trained: yes or no (default: no, in stage 3 yes)
RECIPES           1a 3a   attacks, such as "textfooler textbugger"
NUM_EXAMPLES      1a 3a   attacked rows per attack (default: those of the paper)
CHECKPOINT        1a 3a   attacked checkpoint: last (default), best (on dev), or both
ATTACK_EPOCHS     1a 3a   attacked epochs, such as 1,2,3 (train with --keep_epochs)
ATTACK_PRESET     1a 3a   balanced (default), paper, released, intersection
ROW_CHOICE        1a 3a   choice of rows: balanced, random, first (default: that of the preset)
SCORE_WITH        1a 3a   log_odds or softmax (default: that of the preset)
COMPARED_WITH     1a 3a   run folders whose common rows are attacked, for the intersection
TEMPERATURE       1a 3a   temperatures, such as 1,fitted (default: 1)
QUERY_BUDGET      1a 3a   maximum number of victim queries per row
PROCESSES         1a 3a   processes that attack rows at the same time (default: 1)
NEIGHBOURS        1a 3a   JSON table of synonyms
WORD_VECTORS      1a 3a   counter-fitted word vectors
SENTENCE_ENCODER  1a 3a   Universal Sentence Encoder, a SavedModel folder
MASKED_LM         1a 3a   folder of a masked language model
'

# find_python: set PYTHON, unless it names a program, to that of .venv.
find_python() {
    if [ -n "${PYTHON:-}" ]; then # a path, or a name on PATH
        command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON is not a program"
    else
        PYTHON=$ROOT/.venv/bin/python
        [ -x "$PYTHON" ] || fail "$ROOT/.venv is missing; create it: sh scripts/setup.sh"
    fi
}

# names_of STAGE...: variables that one of these stages reads; without stages all of them.
names_of() {
    printf '%s' "$VARIABLES" | while read -r name words; do
        for word in $words; do
            case $word in [123] | [123]a) ;; *) break ;; esac
            case " ${*:-$word} " in
                *" $word "*)
                    printf '%s ' "$name"
                    break
                    ;;
            esac
        done
    done
}

# value_of NAME: the value of a variable.
value_of() {
    eval "printf '%s' \"\${$1-}\""
}

fail() {
    echo "error: $1" >&2
    exit 2
}

# refuse_carriage_returns NAME...: error for a variable from a file with Windows line endings.
refuse_carriage_returns() {
    carriage_return=$(printf '\r')
    for name in "$@"; do
        case $(value_of "$name") in
            *"$carriage_return"*)
                fail "$name contains a carriage return (Windows line endings?); remove it"
                ;;
        esac
    done
}

# includes LIST NAME: whether a list of words includes a name.
includes() {
    case " $1 " in *" $2 "*) ;; *) return 1 ;; esac
}

# misspelled_as NAME: misspellings of a variable that are errors: singular or plural, and a few
# synonyms. RUN and TAGS are not among them, because other programs use them.
misspelled_as() {
    case $1 in
        RUNS | TAG) ;;
        SPARSITIES) echo SPARSITY ;;
        PROCESSES) echo PROCESS ;;
        *S) echo "${1%S}" ;;
        *) echo "${1}S" ;;
    esac
    case $1 in
        BSZ) echo BATCH_SIZE ;;
        EPOCHS) echo NUM_EPOCHS ;;
        LAMBDA) echo LAMDA ;;
        LR) echo LEARNING_RATE ;;
        MAX_SEQ_LENGTH) echo MAX_LENGTH MAX_SEQ_LEN ;;
        NEIGHBOURS) echo NEIGHBORS ;;
    esac
}

# check_variables STAGE ATTACK: error for a set variable that the stage does not read, and for a
# misspelling. Variables of the attacks may be set for all stages: a note names them if this stage
# does not attack.
check_variables() {
    of_stage=$(names_of "$1")
    of_attacks=$(names_of 1a)
    unread=
    for name in $(names_of); do
        for misspelled in $(misspelled_as "$name"); do
            [ -z "$(value_of "$misspelled")" ] || {
                hint=$(instead_of "$1" "$name")
                fail "stage $1 does not read $misspelled${hint:- (the variable is $name)}; unset it"
            }
        done
        [ -n "$(value_of "$name")" ] || continue
        if includes "$of_stage" "$name"; then
            continue
        elif includes "$of_attacks" "$name"; then
            [ "$2" = yes ] || unread="$unread $name"
        else
            fail "stage $1 does not read $name$(instead_of "$1" "$name"); unset it"
        fi
    done
    [ -z "$unread" ] || echo "note: this stage does not attack, so it does not read$unread" >&2
}

# instead_of STAGE NAME: the variables of stage 2 that have a different name in the other stages.
instead_of() {
    case $1$2 in
        2EPOCHS) echo ' (use SEARCH_EPOCHS or IMP_EPOCHS)' ;;
        2LR) echo ' (use MASK_LR or IMP_LR)' ;;
        1SEARCH_EPOCHS | 3SEARCH_EPOCHS) echo ' (use EPOCHS)' ;;
    esac
}
