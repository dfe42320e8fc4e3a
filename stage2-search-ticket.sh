#!/bin/sh
# Stage 2: learn the scores of a robust ticket on each task (paper, Table 6), from the best-dev
# checkpoint of stage 1.
#
#   sh stage2-search-ticket.sh
#   TASKS="sst2" SEEDS="1 2 3" sh stage2-search-ticket.sh
#   PROTOCOL=released TASKS=sst2 RUNS=runs-released sh stage2-search-ticket.sh
#
# EPOCHS, BSZ, ADV_LR, MASK_LR, LAMBDA, ADV_INIT, ADV_STEPS and MAX_SEQ_LENGTH override every
# block; further flags go to search_ticket.py as they are. All variables: scripts/common.sh.
set -eu
. "$(dirname -- "$0")/scripts/common.sh"
TASKS=${TASKS:-imdb ag_news sst2} # further: qnli qqp mnli builtin/rotten_tomatoes builtin/imdb

for seed in $SEEDS; do
    for task in $TASKS; do
        # adv_lr: eta; adv_init: eps_0; adv_steps: K. The perturbation's norm is not bounded.
        case $task in
            imdb | builtin/imdb)
                adv_lr=0.03 mask_lr=0.1 lambda=0.5 adv_init=0.05 adv_steps=5 weight_decay=1e-6
                epochs=20 bsz=32 max_seq_length=256 sparsity=0.2
                ;;
            ag_news)
                adv_lr=0.03 mask_lr=0.05 lambda=0.5 adv_init=0.05 adv_steps=5 weight_decay=1e-6
                epochs=20 bsz=32 max_seq_length=256 sparsity=0.4
                ;;
            sst2)
                adv_lr=0.03 mask_lr=0.1 lambda=0.5 adv_init=0.05 adv_steps=5 weight_decay=1e-6
                epochs=20 bsz=32 max_seq_length=128 sparsity=0.3
                ;;
            qnli)
                adv_lr=0.04 mask_lr=0.05 lambda=0.1 adv_init=0.05 adv_steps=3 weight_decay=1e-6
                epochs=20 bsz=32 max_seq_length=256 sparsity=0.3
                ;;
            qqp)
                adv_lr=0.04 mask_lr=0.05 lambda=0.1 adv_init=0.05 adv_steps=3 weight_decay=1e-6
                epochs=20 bsz=32 max_seq_length=256 sparsity=0.3
                ;;
            mnli)
                adv_lr=0.2 mask_lr=0.1 lambda=0.1 adv_init=0.05 adv_steps=2 weight_decay=1e-6
                epochs=20 bsz=32 max_seq_length=256 sparsity=0.3
                ;;
            builtin/rotten_tomatoes) # ours: SST-2's, with fewer passes
                adv_lr=0.03 mask_lr=0.1 lambda=0.5 adv_init=0.05 adv_steps=3 weight_decay=1e-6
                epochs=6 bsz=32 max_seq_length=64 sparsity=0.3
                ;;
            *) unknown_task "$task" ;;
        esac
        runs=$(runs_of "$task" "$seed")
        train_on_task search_ticket.py --model_name "$runs/dense" \
            --output_dir "$runs/search-robust" \
            --epochs "${EPOCHS:-$epochs}" --bsz "${BSZ:-$bsz}" --lr "${MASK_LR:-$mask_lr}" \
            --adv_lr "${ADV_LR:-$adv_lr}" --adv_init_mag "${ADV_INIT:-$adv_init}" \
            --adv_steps "${ADV_STEPS:-$adv_steps}" --lambda_amp "${LAMBDA:-$lambda}" \
            --weight_decay "$weight_decay" --sparsity "$sparsity" "$@"
    done
done
