#!/bin/sh
# Stage 3: draw tickets from the scores, rewind to the pre-trained weights, retrain, attack.
#
#   sh stage3-draw-retrain_ticket.sh
#   TASKS="sst2" SEEDS="1 2 3" SPARSITIES="0.3 0.5" sh stage3-draw-retrain_ticket.sh
#   KINDS="robust random_matched" EPOCHS=10 sh stage3-draw-retrain_ticket.sh
#
# KINDS: robust, no_adversary, imp, imp_freelb, imp_pgd, imp_infobert (scores of stage 2); random;
# random_matched (the robust scores permuted within each matrix); magnitude (of the pre-trained
# weights); magnitude_finetuned, wanda, taylor (of the weights of stage 1, the last two also of its
# training rows); complement (the robust ranking reversed).
# REINIT (Table 4): nothing; ticket: the kept weights start from noise; rest: a dense model whose
# removed weights start from noise.
#
# Each block below holds the hyper-parameters of a task. EPOCHS, BSZ, LR, WEIGHT_DECAY and
# MAX_SEQ_LENGTH override all blocks. scripts/variables.sh lists all variables. Further flags go to
# retrain_ticket.py.
. "$(dirname -- "$0")/scripts/line_endings.sh" #
set -eu
stage=3
ATTACK=${ATTACK:-yes}
. "$(dirname -- "$0")/scripts/common.sh"
TASKS=${TASKS:-imdb ag_news sst2} # also: qnli qqp mnli builtin/imdb OWNER/NAME ...
KINDS=${KINDS:-robust}
REINIT=${REINIT:-nothing}
SCORES_TAG=${SCORES_TAG:-} # the TAG of stage 2
check_tasks
check kind "robust no_adversary imp imp_freelb imp_pgd imp_infobert random random_matched \
magnitude magnitude_finetuned wanda taylor complement" "$KINDS"
check start "nothing ticket rest" "$REINIT"
for sparsity in ${SPARSITIES:-}; do
    awk -v number="$sparsity" 'BEGIN {
        exit !(number ~ /^([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?$/ && number + 0 < 1)
    }' || fail "SPARSITIES: '$sparsity' is not a number in [0, 1); give fractions such as 0.3"
done

# make_scores KIND FLAGS...: write $scores. A kind without scores is skipped.
make_scores() {
    made=$1
    shift
    attempt "make_scores.py for $scores" "$PYTHON" "$ROOT/make_scores.py" --kind "$made" \
        --seed "$seed" "$@" --output_dir "$scores"
}

[ "$ATTACK" = no ] || check_resources
for seed in $SEEDS; do
    for task in $TASKS; do
        # sparsities: those of Tables 1 and 2.
        case $task in
            imdb | builtin/imdb)
                sparsities=0.2 epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=256 attacked_rows=500
                ;;
            ag_news)
                sparsities=0.4 epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=256 attacked_rows=1000
                ;;
            qnli)
                sparsities=0.3 epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=256 attacked_rows=1000
                ;;
            qqp)
                sparsities=0.3 epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=256 attacked_rows=1000
                ;;
            mnli)
                sparsities=0.3 epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=256 attacked_rows=1000
                ;;
            builtin/rotten_tomatoes) # ours, for the small encoder
                sparsities=0.3 epochs=3 bsz=32 lr=5e-5 weight_decay=1e-2
                max_seq_length=64 attacked_rows=250
                ;;
            sst2 | *) # also any other data set
                sparsities=0.3 epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=128 attacked_rows=872
                ;;
        esac
        runs=$(runs_of "$task" "$seed")
        for kind in $KINDS; do
            scores="$runs/$(scores_of "$kind")$SCORES_TAG"
            case $kind in
                robust | no_adversary | imp | imp_*) ;;
                random_matched | complement)
                    make_scores "$kind" --scores "$runs/search-robust$SCORES_TAG" || continue
                    ;;
                random | magnitude)
                    make_scores "$kind" --model_name "$MODEL" || continue
                    ;;
                magnitude_finetuned | wanda | taylor)
                    make_scores "${kind%_finetuned}" --model_name "$MODEL" \
                        --finetuned "$runs/dense/best" || continue
                    ;;
            esac
            for sparsity in ${SPARSITIES:-$sparsities}; do
                for reinit in $REINIT; do
                    folder="$runs/ticket-$kind-$sparsity"
                    [ "$reinit" = nothing ] || folder="$folder-reinit_$reinit"
                    train_on_task retrain_ticket.py --model_name "$MODEL" --scores "$scores" \
                        --sparsity "$sparsity" --reinitialise "$reinit" \
                        --output_dir "$folder$TAG" \
                        --epochs "${EPOCHS:-$epochs}" --bsz "${BSZ:-$bsz}" --lr "${LR:-$lr}" \
                        --weight_decay "${WEIGHT_DECAY:-$weight_decay}" "$@"
                    if [ "$ATTACK" = yes ]; then
                        attack_run "$folder$TAG" "$attacked_rows"
                    fi
                done
            done
        done
    done
done
report_failures
