#!/bin/sh
# Stage 2: learn the scores of a robust ticket on each task (Table 6 of the paper), from the
# checkpoint of stage 1 with the best dev accuracy. Or find one of the tickets that it is compared
# with.
#
#   sh stage2-search-ticket.sh
#   TASKS="sst2" SEEDS="1 2 3" sh stage2-search-ticket.sh
#   KINDS="robust no_adversary imp imp_freelb" sh stage2-search-ticket.sh
#   DEVIATIONS=released TASKS=sst2 RUNS=runs-released sh stage2-search-ticket.sh
#
# KINDS: robust; no_adversary (K = 0; Table 3, "w/o Adv"); imp (iterative magnitude pruning; Table
# 1, "LTH"); imp_freelb, imp_pgd, imp_infobert (the same with adversarial training; Table 3, "w/o
# mask learning"). Iterative pruning needs no stage 1. It prunes up to IMP_SPARSITY, IMP_SHARE of
# the weights every IMP_EPOCHS.
#
# Each block below holds the hyper-parameters of a task. SEARCH_EPOCHS, BSZ, ADV_LR, MASK_LR,
# LAMBDA, ADV_INIT, ADV_STEPS and MAX_SEQ_LENGTH override all blocks. scripts/variables.sh lists all
# variables. Further flags go to the Python script.
. "$(dirname -- "$0")/scripts/line_endings.sh" #
set -eu
stage=2
ATTACK=${ATTACK:-no}
. "$(dirname -- "$0")/scripts/common.sh"
TASKS=${TASKS:-imdb ag_news sst2} # also: qnli qqp mnli builtin/imdb OWNER/NAME ...
KINDS=${KINDS:-robust}
check_tasks
check kind "robust no_adversary imp imp_freelb imp_pgd imp_infobert" "$KINDS"

for seed in $SEEDS; do
    for task in $TASKS; do
        # adv_lr: eta; adv_init: eps_0; adv_steps: K. The perturbation has no bound.
        # imp_*: iterative pruning (Chen et al. 2020: 10 % of the weights every 3 epochs).
        case $task in
            imdb | builtin/imdb)
                adv_lr=0.03 mask_lr=0.1 lambda=0.5 adv_init=0.05 adv_steps=5 weight_decay=1e-6
                epochs=20 bsz=32 max_seq_length=256 sparsity=0.2
                imp_share=0.1 imp_epochs=3 imp_bsz=32 imp_lr=2e-5
                ;;
            ag_news)
                adv_lr=0.03 mask_lr=0.05 lambda=0.5 adv_init=0.05 adv_steps=5 weight_decay=1e-6
                epochs=20 bsz=32 max_seq_length=256 sparsity=0.4
                imp_share=0.1 imp_epochs=3 imp_bsz=32 imp_lr=2e-5
                ;;
            qnli)
                adv_lr=0.04 mask_lr=0.05 lambda=0.1 adv_init=0.05 adv_steps=3 weight_decay=1e-6
                epochs=20 bsz=32 max_seq_length=256 sparsity=0.3
                imp_share=0.1 imp_epochs=3 imp_bsz=32 imp_lr=2e-5
                ;;
            qqp)
                adv_lr=0.04 mask_lr=0.05 lambda=0.1 adv_init=0.05 adv_steps=3 weight_decay=1e-6
                epochs=20 bsz=32 max_seq_length=256 sparsity=0.3
                imp_share=0.1 imp_epochs=3 imp_bsz=32 imp_lr=2e-5
                ;;
            mnli)
                adv_lr=0.2 mask_lr=0.1 lambda=0.1 adv_init=0.05 adv_steps=2 weight_decay=1e-6
                epochs=20 bsz=32 max_seq_length=256 sparsity=0.3
                imp_share=0.1 imp_epochs=3 imp_bsz=32 imp_lr=2e-5
                ;;
            builtin/rotten_tomatoes) # ours: SST-2's, with fewer passes
                adv_lr=0.03 mask_lr=0.1 lambda=0.5 adv_init=0.05 adv_steps=3 weight_decay=1e-6
                epochs=6 bsz=32 max_seq_length=64 sparsity=0.3
                imp_share=0.1 imp_epochs=3 imp_bsz=32 imp_lr=5e-5
                ;;
            sst2 | *) # also any other data set
                adv_lr=0.03 mask_lr=0.1 lambda=0.5 adv_init=0.05 adv_steps=5 weight_decay=1e-6
                epochs=20 bsz=32 max_seq_length=128 sparsity=0.3
                imp_share=0.1 imp_epochs=3 imp_bsz=32 imp_lr=2e-5
                ;;
        esac
        runs=$(runs_of "$task" "$seed")
        for kind in $KINDS; do
            folder="$runs/$(scores_of "$kind")$TAG"
            case $kind in
                robust | no_adversary)
                    steps=${ADV_STEPS:-$adv_steps}
                    [ "$kind" = robust ] || steps=0
                    train_on_task search_ticket.py --model_name "$runs/dense" \
                        --output_dir "$folder" \
                        --epochs "${SEARCH_EPOCHS:-$epochs}" --bsz "${BSZ:-$bsz}" \
                        --lr "${MASK_LR:-$mask_lr}" --adv_lr "${ADV_LR:-$adv_lr}" \
                        --adv_init_mag "${ADV_INIT:-$adv_init}" --adv_steps "$steps" \
                        --lambda_amp "${LAMBDA:-$lambda}" --weight_decay "$weight_decay" \
                        --sparsity "$sparsity" "$@"
                    ;;
                imp | imp_*)
                    method=plain
                    [ "$kind" = imp ] || method=${kind#imp_}
                    adversary=$(adversary_of "$method")
                    # $adversary is several words.
                    train_on_task prune_iteratively.py --model_name "$MODEL" \
                        --output_dir "$folder" --to_sparsity "${IMP_SPARSITY:-$sparsity}" \
                        --share_per_round "${IMP_SHARE:-$imp_share}" \
                        --epochs "${IMP_EPOCHS:-$imp_epochs}" --bsz "${BSZ:-$imp_bsz}" \
                        --lr "${IMP_LR:-$imp_lr}" $adversary "$@"
                    ;;
            esac
        done
    done
done
