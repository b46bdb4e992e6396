"""A line for each strategy of the page: (en, ru, zh, ko, ja). A strategy of another package has only its name."""

from typing import Any

from ... import mixers
from ..arguments.keys import HOST_STRATEGIES

_TEXTS: tuple[tuple[str, str, str, str, str, str], ...] = (
    (
        "concat",
        "no mixing: all data, shuffled",
        "без смешивания: все данные вперемешку",
        "不混合：全部数据打乱",
        "혼합 없음: 전체 데이터를 섞음",
        "混合なし：全データをシャッフル",
    ),
    (
        "interleave_under",
        "takes turns until the first dataset ends",
        "по очереди, пока не кончится первый набор",
        "轮流取样，直到最小的数据集用完",
        "가장 작은 데이터셋이 끝날 때까지 번갈아",
        "最初のデータセットが尽きるまで交互に",
    ),
    (
        "interleave_over",
        "takes turns until the last dataset ends",
        "по очереди, пока не кончится последний набор",
        "轮流取样，直到最大的数据集用完",
        "가장 큰 데이터셋이 끝날 때까지 번갈아",
        "最後のデータセットが尽きるまで交互に",
    ),
    (
        "interleave_once",
        "takes turns, each sample once",
        "по очереди, каждый пример один раз",
        "轮流取样，每个样本只用一次",
        "번갈아, 각 샘플은 한 번씩",
        "交互に、各サンプルは一度だけ",
    ),
    (
        "dids",
        "feeds more of what helps your tasks (recommended)",
        "больше того, что помогает вашим задачам (рекомендуется)",
        "多训练对目标任务有帮助的数据（推荐）",
        "태스크에 도움이 되는 데이터를 더 학습(권장)",
        "タスクに役立つデータを多く学習（推奨）",
    ),
    (
        "dga",
        "by how gradients of data and tasks agree",
        "по согласию градиентов данных и задач",
        "按数据与任务梯度的一致程度",
        "데이터와 태스크 그래디언트의 일치도에 따라",
        "データとタスクの勾配の一致度で",
    ),
    (
        "doge",
        "a small model finds a fixed mixture first",
        "малая модель сначала находит постоянную смесь",
        "先由小模型找出固定配比",
        "작은 모델이 먼저 고정 혼합을 찾음",
        "小さなモデルが先に固定の混合比を探す",
    ),
    (
        "doremi",
        "two small models find a fixed mixture first",
        "две малые модели сначала находят постоянную смесь",
        "先由两个小模型找出固定配比",
        "작은 모델 두 개가 먼저 고정 혼합을 찾음",
        "二つの小さなモデルが先に固定の混合比を探す",
    ),
    (
        "velocitune",
        "feeds more of what is learnt slowly",
        "больше того, что учится медленно",
        "多训练学得慢的数据",
        "느리게 배우는 데이터를 더 학습",
        "学習が遅いデータを多く学習",
    ),
    (
        "importance",
        "a fixed mixture, like your tasks",
        "постоянная смесь, похожая на ваши задачи",
        "与目标任务相似的固定配比",
        "태스크와 비슷한 고정 혼합",
        "タスクに似た固定の混合比",
    ),
    (
        "odm",
        "feeds more of what has a high loss; needs no tasks",
        "больше того, где потери велики; задачи не нужны",
        "多训练损失高的数据；不需要任务",
        "손실이 큰 데이터를 더 학습, 태스크 불필요",
        "損失が大きいデータを多く学習、タスク不要",
    ),
    (
        "balance",
        "feeds more of what helps all of the data; needs no tasks",
        "больше того, что помогает всем данным; задачи не нужны",
        "多训练对全部数据有帮助的内容；不需要任务",
        "전체 데이터에 도움이 되는 것을 더 학습, 태스크 불필요",
        "データ全体に役立つものを多く学習、タスク不要",
    ),
    (
        "schedule",
        "from one mixture to another over the run",
        "от одной смеси к другой за время запуска",
        "训练过程中从一种配比过渡到另一种",
        "실행 동안 한 혼합에서 다른 혼합으로",
        "学習中にある混合比から別の混合比へ",
    ),
    (
        "uniform",
        "baseline: every domain alike",
        "для сравнения: все домены поровну",
        "基线：每个领域相同",
        "기준선: 모든 도메인을 똑같이",
        "ベースライン：全ドメイン均等",
    ),
    (
        "proportional",
        "baseline: every sample alike",
        "для сравнения: все примеры поровну",
        "基线：每个样本相同",
        "기준선: 모든 샘플을 똑같이",
        "ベースライン：全サンプル均等",
    ),
    (
        "static",
        "fixed probabilities that you give",
        "заданные вами постоянные вероятности",
        "由你给定的固定概率",
        "직접 정한 고정 확률",
        "自分で決めた固定の確率",
    ),
)
LINES = {name: lines for name, *lines in _TEXTS}  # in the order of the page's list


def choices(place: int) -> tuple[tuple[str, str], ...]:
    """(text, strategy) of each strategy, in the `place`-th language."""
    names: tuple[Any, ...] = (*HOST_STRATEGIES, *sorted(mixers.names(), key=_recommended_first))
    return tuple((f"{name} — {LINES[name][place]}" if name in LINES else name, name) for name in names)


def _recommended_first(name: str) -> int:
    places = list(LINES)
    return places.index(name) if name in places else len(places)
