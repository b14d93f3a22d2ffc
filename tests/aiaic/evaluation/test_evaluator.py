"""Evaluation of colorizers whose metrics are known by construction."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from aiaic.color import AB_SCALE, join, rgb_to_lab
from aiaic.evaluation import metrics
from aiaic.evaluation.conditions import MATCHED, SWAPPED, GroundTruth
from aiaic.evaluation.encoding import Networks, add_noise
from aiaic.evaluation.evaluator import InProcess, evaluate
from aiaic.evaluation.perceptual import Inception, Lpips, Perception, fid
from aiaic.evaluation.retrieval import cosine_ceiling
from aiaic.evaluation.scorer import Scorer
from aiaic.evaluation.summary import summarize
from aiaic.loading.batch import Batch, Draw
from aiaic.networks.model import Model

SIZE = 24
COLOURS = torch.tensor([[20.0, 25.0], [5.0, -30.0], [25.0, 8.0], [-25.0, 25.0]])
"""Mean ab of four classes, inside sRGB; class // 2 is the appearance, which L determines."""
BRIGHTNESS = (40.0, 70.0)
COUNT = 32
UNSOUND, UNFITTING = {3, 12}, {5, 22}


def class_of(clip: int) -> int:
    return clip // 2 % 4


def scene(clip: int) -> torch.Tensor:
    """L of a clip's grey scene, [1 1 h w]."""
    texture = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(clip))
    return BRIGHTNESS[class_of(clip) // 2] + 10 * (texture - texture.mean())


def rendering(key: str, name: str) -> np.ndarray:
    """Rendered at twice the size, as renderings of a world are larger than the evaluated view."""
    ab = COLOURS[int(name)].view(1, 2, 1, 1).expand(1, 2, SIZE, SIZE)
    rgb = join(scene(int(key)), ab)[0].permute(1, 2, 0).numpy()
    return rgb.repeat(2, 0).repeat(2, 1)


def batches(size: int = 5):
    for start in range(0, COUNT, size):
        clips = list(range(start, min(start + size, COUNT)))
        jitter = torch.Generator().manual_seed(start)
        pictures, sounds = [], []
        for clip in clips:
            hue = COLOURS[class_of(clip)] + 4 * torch.randn(2, generator=jitter)
            pictures.append(join(scene(clip), hue.view(1, 2, 1, 1).expand(1, 2, SIZE, SIZE)))
            sound_class = (class_of(clip) + 2 * (clip in UNFITTING)) % 4
            sounds.append(torch.full((1, 800), 0 if clip in UNSOUND else 3000 + 6000 * sound_class))
        yield Batch(
            keys=tuple(str(clip) for clip in clips),
            video=torch.tensor(clips),
            position=torch.arange(len(clips)),
            picture=torch.cat(pictures),
            waveform=torch.cat(sounds).short(),
            has_sound=torch.tensor([clip not in UNSOUND for clip in clips]),
            draws=torch.full((len(clips), len(Draw)), 0.5),
            global_size=len(clips),
        )


def truth() -> GroundTruth:
    keys = [str(clip) for clip in range(COUNT)]
    return GroundTruth(
        class_by_key={key: str(class_of(int(key))) for key in keys},
        appearance_by_key={key: str(class_of(int(key)) // 2) for key in keys},
        fits_by_key={key: int(key) not in UNFITTING for key in keys},
        rendering=rendering,
    )


class Oracle(Model):
    """Predicts the mean colour of the sound's class, or without sound the mean of the siblings."""

    uses_sound = True
    always_relevant = False

    def __init__(self):
        torch.nn.Module.__init__(self)

    @property
    def colorizer(self):
        return self

    def scene(self, rgb):
        ab = rgb_to_lab(rgb)[1].mean((2, 3))
        return F.one_hot(torch.cdist(ab, COLOURS).argmin(1), 4).float()

    def audio(self, waveform):
        sound_class = (waveform.mean(1) * 32768 - 3000) / 6000
        return F.one_hot(sound_class.round().long().clamp(0, 3), 4).float()

    def __call__(self, L, semantics, present):
        appearance = (L.mean((1, 2, 3)) > sum(BRIGHTNESS) / 2).long()
        sound_class = semantics.argmax(1)
        fits = present & (sound_class // 2 == appearance) & self.uses_sound
        without = COLOURS.view(2, 2, 2).mean(1)[appearance]
        ab = torch.where(fits[:, None], COLOURS[sound_class], without) / AB_SCALE
        logits = torch.where(fits, 3.0, -3.0)[:, None].expand(-1, 2)
        return ab[:, :, None, None].expand(-1, -1, *L.shape[2:]), logits


class IgnoresSound(Oracle):
    """Ignores the sound."""

    uses_sound = False


def process(model=None, *, audio_trained=True, stage1=None, chunks=(batches,), **parts):
    networks = Networks(model=model or Oracle(), audio_trained=audio_trained, stage1=stage1)
    return InProcess(scorer=Scorer(networks=networks, **parts), chunks=chunks)


def run(model, *, audio_trained=True, stage1=None, truth=None, labels=None, trained=None):
    evaluator = process(model, audio_trained=audio_trained, stage1=stage1, truth=truth)
    networks = evaluator.scorer.networks
    evaluation = evaluate(evaluator, truth=truth, labels=labels)
    return summarize(evaluation, networks, truth=truth, labels=labels, trained_labels=trained)


@pytest.fixture(scope="module")
def perfect():
    return run(Oracle(), stage1=Oracle(), truth=truth())


def test_a_perfect_colorizer_reaches_the_bounds(perfect):
    assert perfect["oracle_share"] == pytest.approx(1, abs=1e-3)
    assert perfect["swapped_share"] == pytest.approx(1, abs=1e-3)
    assert perfect["conditions"]["missing"]["psnr"] == pytest.approx(
        perfect["bounds"]["without_sound"]["psnr"], abs=0.02
    )
    assert perfect["paired"]["matched"]["mse_ab"] == pytest.approx(
        perfect["paired"]["with_sound"]["mse_ab"], rel=1e-2
    )
    assert perfect["guidance_gain_db"] > 4
    assert perfect["harm_db"] == pytest.approx(0, abs=1e-6)
    assert perfect["relevance_auc"] == 1
    assert perfect["retrieval"]["r_at_1_by_class"] == 1


def test_a_colorizer_that_ignores_sound_gains_nothing():
    result = run(IgnoresSound(), truth=truth())
    assert result["oracle_share"] == pytest.approx(0, abs=1e-3)
    assert result["swapped_share"] == pytest.approx(0, abs=1e-3)
    assert result["guidance_gain_db"] == 0
    assert result["relevance_auc"] == 0.5
    assert result["ab_distance"] == {
        "matched_missing": 0, "matched_mismatched": 0, "matched_swapped": 0
    }  # fmt: skip


def test_a_colorizer_that_follows_any_sound_is_harmed():
    class Credulous(Oracle):
        def __call__(self, L, semantics, present):
            ab, logits = super().__call__(L, semantics, present)
            sound_class = COLOURS[semantics.argmax(1)][:, :, None, None] / AB_SCALE
            return torch.where(present[:, None, None, None], sound_class, ab), logits

    result = run(Credulous(), truth=truth())
    assert result["oracle_share"] == pytest.approx(1, abs=1e-3)
    assert result["harm_db"] > 3


def test_conditions_are_over_the_specified_clips(perfect):
    fitting = COUNT - len(UNSOUND) - len(UNFITTING)
    counts = {name: row["n"] for name, row in perfect["conditions"].items()}
    assert counts.pop("missing") == COUNT
    assert set(counts.values()) == {fitting}
    assert set(counts) == {
        "matched", "silent", "mismatched", "swapped", "image", "noisy_10db", "noisy_0db"
    }  # fmt: skip
    assert perfect["paired"]["n"] == fitting
    assert perfect["bounds"]["with_sound"]["n"] == COUNT
    paired = perfect["paired"]
    assert perfect["guidance_gain_db"] == pytest.approx(
        paired["matched"]["psnr"] - paired["missing"]["psnr"]
    )


def test_silence_counts_as_missing(perfect):
    silent = perfect["conditions"]["silent"]
    assert silent["psnr"] == pytest.approx(perfect["paired"]["missing"]["psnr"])
    assert "relevance" not in silent
    assert set(perfect["relevance"]) == {
        "matched", "mismatched", "swapped", "image", "noisy_10db", "noisy_0db"
    }  # fmt: skip


def test_bounds_agree_with_numpy(perfect):
    errors = {"without_sound": [], "with_sound": []}
    for batch in batches():
        L, _ = rgb_to_lab(batch.picture)
        own_classes = [class_of(int(key)) for key in batch.keys]
        for row, own in enumerate(own_classes):
            siblings = COLOURS[own // 2 * 2 : own // 2 * 2 + 2]
            for name, ab in (("without_sound", siblings.mean(0)), ("with_sound", COLOURS[own])):
                result = join(L[row : row + 1], ab.view(1, 2, 1, 1).expand(1, 2, SIZE, SIZE))
                errors[name].append(metrics.psnr(result, batch.picture[row : row + 1]).item())
    for name, values in errors.items():
        assert perfect["bounds"][name]["psnr"] == pytest.approx(np.mean(values), abs=0.05)


def test_every_condition_has_all_metrics(perfect):
    expected = {
        "psnr", "mse_ab", "ssim", "colorfulness", "colorfulness_abs", "colorfulness_difference", "n"
    }  # fmt: skip
    for row in perfect["conditions"].values():
        assert expected <= set(row)


def test_without_ground_truth_what_needs_it_is_absent_with_a_reason():
    labels = {str(clip): f"label{class_of(clip)}" for clip in range(COUNT)}
    result = run(Oracle(), labels=labels, trained={"label0", "label1"})
    assert set(result["absent"]) == {
        "bounds", "cosine_ceiling", "fid", "image", "kid", "lpips", "oracle_share",
        "probe_accuracy", "swapped", "swapped_share",
    }  # fmt: skip
    assert "truth" in result["absent"]["swapped_share"]
    assert "stage-1" in result["absent"]["image"]
    assert result["conditions"]["matched"]["n"] == COUNT - len(UNSOUND)
    assert 0 < result["conditions"]["unseen"]["n"] < result["conditions"]["matched"]["n"]
    assert result["bounds"] == {}


def test_a_stage_1_checkpoint_is_evaluated_without_sound():
    result = run(Oracle(), audio_trained=False, stage1=Oracle(), truth=truth())
    assert set(result["conditions"]) == {"missing", "image"}
    assert "stage 1" in result["absent"]["matched"]
    assert {"guidance_gain_db", "harm_db", "oracle_share", "retrieval"} <= set(result["absent"])


def test_relevance_fixed_at_1_is_absent():
    model = Oracle()
    model.always_relevant = True
    result = run(model, truth=truth())
    assert "fixed at 1" in result["absent"]["relevance_auc"]
    assert "relevance_auc" not in result


def test_metrics_are_inside_their_intervals(perfect):
    found = perfect["intervals"]
    assert found["videos"] == COUNT
    assert set(found["psnr"]) == set(perfect["conditions"])
    for name, row in perfect["conditions"].items():
        assert found["psnr"][name]["low"] < row["psnr"] < found["psnr"][name]["high"]
    for name in ("guidance_gain_db", "oracle_share", "swapped_share", "relevance_auc"):
        assert found[name]["low"] <= perfect[name] + 1e-9
        assert perfect[name] <= found[name]["high"] + 1e-9
    assert found["r_at_1"]["low"] <= perfect["retrieval"]["r_at_1"] <= found["r_at_1"]["high"]


def test_semantics_of_the_class_alone_leak_nothing_and_reach_the_upper_bound(perfect):
    assert perfect["retrieval"]["cosine_ceiling"] == pytest.approx(1)
    assert perfect["colour_leak_r2"] < 0.1


def test_semantics_with_the_pictures_own_colour_leak_it():
    class LeaksColours(Oracle):
        def scene(self, rgb):
            ab = rgb_to_lab(rgb)[1].mean((2, 3)) / 50
            return torch.cat([super().scene(rgb), ab], dim=1)

    labels = {str(clip): f"label{class_of(clip)}" for clip in range(COUNT)}
    assert run(LeaksColours(), audio_trained=False, truth=truth())["colour_leak_r2"] > 0.5
    assert run(LeaksColours(), audio_trained=False, labels=labels)["colour_leak_r2"] > 0.5
    assert (
        "without ground truth or labels"
        in run(LeaksColours(), audio_trained=False)["absent"]["colour_leak_r2"]
    )


def test_the_ceiling_leaves_each_clip_out():
    generator = torch.Generator().manual_seed(0)
    scene = F.normalize(torch.randn(20, 6, generator=generator), dim=1)
    groups = torch.arange(20) % 3
    expected = [
        F.cosine_similarity(
            scene[row],
            torch.stack([scene[o] for o in range(20) if o % 3 == row % 3 and o != row]).mean(0),
            dim=0,
        )
        for row in range(20)
    ]
    found = cosine_ceiling(scene, groups)
    assert found == pytest.approx(torch.stack(expected).mean().item())
    assert cosine_ceiling(scene, torch.arange(20)) is None


def test_metrics_by_label_are_over_clips_with_both_results():
    labels = {str(clip): f"label{class_of(clip)}" for clip in range(COUNT)}
    evaluation = evaluate(process(), labels=labels)
    result = run(Oracle(), labels=labels)["labels"]
    assert list(result) == [f"label{number}" for number in range(4)]
    assert sum(row["n"] for row in result.values()) == COUNT - len(UNSOUND)
    chosen = [key for key in evaluation.scores["matched"] if labels[key] == "label1"]
    for name in ("matched", "missing"):
        psnr = np.mean([evaluation.scores[name][key]["psnr"] for key in chosen])
        assert result["label1"][f"psnr_{name}"] == pytest.approx(psnr)
    row = result["label1"]
    assert row["guidance_gain_db"] == pytest.approx(row["psnr_matched"] - row["psnr_missing"])
    assert 0 < row["relevance_matched"] < 1


class Colours(Inception):
    """Replaces Inception: mean colours as features."""

    def __init__(self):
        pass

    def __call__(self, rgb):
        return rgb.float().mean((2, 3))


class Difference(Lpips):
    """Replaces LPIPS."""

    def __init__(self):
        pass

    def __call__(self, prediction, truth):
        return (prediction.float() - truth.float()).abs().mean((1, 2, 3))


def test_lpips_fid_and_kid_are_over_the_same_clips_as_the_condition():
    perception = Perception(lpips=Difference(), inception=Colours())
    evaluator = process(truth=truth(), perception=perception, stage1=Oracle())
    evaluation = evaluate(evaluator, truth=truth())
    result = summarize(evaluation, evaluator.scorer.networks, truth=truth())
    assert all("lpips" in row for row in result["conditions"].values())
    assert "lpips" not in result["bounds"]["with_sound"]
    matched, missing = (result["conditions"][name] for name in ("matched", "missing"))
    assert 0 < matched["fid"] < missing["fid"]
    assert matched["kid"] < missing["kid"]
    fitting = evaluation.features["matched"].keys
    truths = evaluation.features["picture"].of(fitting)
    assert matched["fid"] == fid(truths, evaluation.features["matched"].rows)
    paired = result["paired"]["missing"]["fid"]
    assert paired == fid(truths, evaluation.features["missing"].of(fitting))
    assert paired != missing["fid"]
    assert result["paired"]["matched"]["kid"] == matched["kid"]
    assert "prefer KID" in result["notes"]["fid"]
    assert not {"lpips", "fid", "kid"} & set(result["absent"])


def test_observed_predictions_are_the_scored_ones():
    seen = {}

    def observe(prediction):
        for row, key in enumerate(prediction.keys):
            seen[prediction.condition, key] = (
                join(prediction.L, prediction.ab_predicted)[row : row + 1],
                join(prediction.L, prediction.ab_true)[row : row + 1],
            )

    evaluation = evaluate(process(truth=truth(), observe=observe), truth=truth())
    assert {condition for condition, _ in seen} == {
        "matched", "missing", "silent", "mismatched", "swapped", "noisy_10db", "noisy_0db"
    }  # fmt: skip
    for (condition, key), pair in seen.items():
        expected = evaluation.scores[condition][key]["psnr"]
        assert metrics.psnr(*pair).item() == pytest.approx(expected, abs=0.2)


def test_chunking_and_random_state_change_nothing():
    parts = list(batches())
    whole = evaluate(process(truth=truth()), truth=truth(), seed=4)
    torch.manual_seed(99)
    chunks = [lambda part=part: iter(part) for part in (parts[:2], parts[2:3], parts[3:])]
    chunked = evaluate(process(truth=truth(), chunks=chunks), truth=truth(), seed=4)
    assert json.dumps(whole.scores) == json.dumps(chunked.scores)
    assert whole.sounds == chunked.sounds
    assert whole.semantics.clips == chunked.semantics.clips
    assert torch.equal(whole.semantics.scene, chunked.semantics.scene)
    networks = Networks(model=Oracle(), audio_trained=True)
    first, second = (summarize(each, networks, truth=truth()) for each in (whole, chunked))
    assert json.dumps(first) == json.dumps(second)
    assert whole.scores[MATCHED].keys() == whole.scores[SWAPPED].keys()


def test_noise_has_the_requested_level():
    waveform = torch.sin(torch.arange(16000) / 7.0).repeat(2, 1) * torch.tensor([[0.5], [0.01]])
    for snr_db in (10.0, 0.0):
        noise = add_noise(waveform, snr_db, [1, 2]) - waveform
        ratio = waveform.square().mean(1) / noise.square().mean(1)
        torch.testing.assert_close(10 * ratio.log10(), torch.full((2,), snr_db), atol=0.2, rtol=0)
    one, other = (add_noise(waveform[:1], 0.0, [seed]) for seed in (1, 2))
    assert not torch.equal(one, other)


def test_an_evaluation_without_clips_is_rejected():
    with pytest.raises(ValueError, match="no clips"):
        evaluate(process(chunks=[list]))
    with pytest.raises(ValueError, match="no clips"):
        evaluate(process(chunks=[]))
