#!/bin/sh
# Stage 3: draw tickets from the scores, rewind to the pre-trained weights, retrain, attack.
#
#   sh stage3-draw-retrain_ticket.sh
#   TASKS="sst2" SEEDS="1 2 3" SPARSITIES="0.3 0.5" sh stage3-draw-retrain_ticket.sh
#   KINDS="robust random_matched" EPOCHS=10 sh stage3-draw-retrain_ticket.sh
#
# KINDS: robust (stage 2's scores), random, random_matched (the robust scores permuted within each
# matrix), magnitude (of the pre-trained weights). EPOCHS, BSZ, LR, WEIGHT_DECAY, MAX_SEQ_LENGTH
# override every block; further flags go to retrain_ticket.py. All variables: scripts/common.sh.
set -eu
. "$(dirname -- "$0")/scripts/common.sh"
TASKS=${TASKS:-imdb ag_news sst2} # further: qnli qqp mnli builtin/rotten_tomatoes builtin/imdb
KINDS=${KINDS:-robust}
ATTACK=${ATTACK:-yes}

for seed in $SEEDS; do
    for task in $TASKS; do
        # sparsities: of the paper's Tables 1 and 2.
        case $task in
            imdb | builtin/imdb)
                sparsities=0.2 epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=256 attacked_rows=500
                ;;
            ag_news)
                sparsities=0.4 epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=256 attacked_rows=1000
                ;;
            sst2)
                sparsities=0.3 epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=128 attacked_rows=872
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
            builtin/rotten_tomatoes) # ours: the miniature, for the small encoder
                sparsities=0.3 epochs=3 bsz=32 lr=5e-5 weight_decay=1e-2
                max_seq_length=64 attacked_rows=250
                ;;
            *) unknown_task "$task" ;;
        esac
        runs=$(runs_of "$task" "$seed")
        for kind in $KINDS; do
            case $kind in
                robust) ;;
                random_matched)
                    "$PYTHON" "$ROOT/make_scores.py" --kind "$kind" --seed "$seed" \
                        --scores "$runs/search-robust" --output_dir "$runs/scores-$kind"
                    ;;
                random | magnitude)
                    "$PYTHON" "$ROOT/make_scores.py" --kind "$kind" --seed "$seed" \
                        --model_name "$MODEL" --output_dir "$runs/scores-$kind"
                    ;;
                *)
                    echo "error: unknown kind '$kind'; known are robust, random," \
                        "random_matched, magnitude" >&2
                    exit 2
                    ;;
            esac
            scores="$runs/scores-$kind"
            [ "$kind" != robust ] || scores="$runs/search-robust"
            for sparsity in ${SPARSITIES:-$sparsities}; do
                folder="$runs/ticket-$kind-$sparsity"
                train_on_task retrain_ticket.py --model_name "$MODEL" --scores "$scores" \
                    --sparsity "$sparsity" --output_dir "$folder" \
                    --epochs "${EPOCHS:-$epochs}" --bsz "${BSZ:-$bsz}" --lr "${LR:-$lr}" \
                    --weight_decay "${WEIGHT_DECAY:-$weight_decay}" "$@"
                if [ "$ATTACK" = yes ]; then
                    attack_run "$folder" "$attacked_rows"
                fi
            done
        done
    done
done
