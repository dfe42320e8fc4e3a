#!/bin/sh
# Stage 1: fine-tune the pre-trained encoder on each task (Table 5 of the paper).
#
#   sh stage1-finetune.sh                                   BERT-base, hub data, one seed
#   TASKS="sst2" SEEDS="1 2 3" GPUS=0 sh stage1-finetune.sh
#   MODEL=builtin/minilm TASKS=builtin/rotten_tomatoes sh stage1-finetune.sh
#   MODEL=builtin/minilm TASKS=sst2 DATA=folder/of/sst2 sh stage1-finetune.sh
#   ATTACK=yes sh stage1-finetune.sh                        also attack the fine-tuned models
#   METHODS="plain freelb infobert" sh stage1-finetune.sh   baselines (settings: scripts/common.sh)
#
# Each block below holds the hyper-parameters of a task. EPOCHS, BSZ, LR, WEIGHT_DECAY and
# MAX_SEQ_LENGTH override all blocks. STOP_AT_LOSS ends training at a loss, or at that of the run of
# a ticket. scripts/variables.sh lists all variables. Further flags go to finetune.py.
. "$(dirname -- "$0")/scripts/line_endings.sh" #
set -eu
stage=1
ATTACK=${ATTACK:-no}
. "$(dirname -- "$0")/scripts/common.sh"
TASKS=${TASKS:-imdb ag_news sst2} # also: qnli qqp mnli builtin/imdb OWNER/NAME ...
METHODS=${METHODS:-plain}
check_tasks
check method "$KNOWN_METHODS" "$METHODS"

[ "$ATTACK" = no ] || check_resources
for seed in $SEEDS; do
    for task in $TASKS; do
        case $task in
            imdb | builtin/imdb)
                epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=256 attacked_rows=500
                ;;
            ag_news)
                epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=256 attacked_rows=1000
                ;;
            qnli)
                epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=256 attacked_rows=1000
                ;;
            qqp)
                epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=256 attacked_rows=1000
                ;;
            mnli)
                epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=256 attacked_rows=1000
                ;;
            builtin/rotten_tomatoes) # ours, for the small encoder
                epochs=3 bsz=32 lr=5e-5 weight_decay=1e-2
                max_seq_length=64 attacked_rows=250
                ;;
            sst2 | *) # also any other data set
                epochs=3 bsz=32 lr=2e-5 weight_decay=1e-2
                max_seq_length=128 attacked_rows=872
                ;;
        esac
        for method in $METHODS; do
            adversary=$(adversary_of "$method")
            folder=$(runs_of "$task" "$seed")/dense
            [ "$method" = plain ] || folder="$folder-$method"
            # $adversary is several words.
            train_on_task finetune.py --model_name "$MODEL" --output_dir "$folder$TAG" \
                --epochs "${EPOCHS:-$epochs}" --bsz "${BSZ:-$bsz}" --lr "${LR:-$lr}" \
                --weight_decay "${WEIGHT_DECAY:-$weight_decay}" \
                ${STOP_AT_LOSS:+--stop_at_loss "$STOP_AT_LOSS"} $adversary "$@"
            if [ "$ATTACK" = yes ]; then
                attack_run "$folder$TAG" "$attacked_rows"
            fi
        done
    done
done
report_failures
