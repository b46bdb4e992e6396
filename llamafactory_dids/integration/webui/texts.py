"""The names of our components in each of the page's languages: (label, help).

A component's id ends in the key that it sets. The tests use this to find a missing language.
"""

from typing import Any

from .phrases import PHRASES
from .strategies import choices

LANGUAGES = ("en", "ru", "zh", "ko", "ja")

FIELD_TEXTS: dict[str, dict[str, tuple[str, str]]] = {
    "mix_strategy": {
        "en": ("Strategy", "Who decides which data comes next. concat and interleave_* are LLaMA-Factory's own."),
        "ru": ("Стратегия", "Кто решает, какие данные идут дальше. concat и interleave_* — из самой LLaMA-Factory."),
        "zh": ("混合策略", "由谁决定接下来训练哪些数据。concat 和 interleave_* 是 LLaMA-Factory 自带的。"),
        "ko": ("전략", "다음에 어떤 데이터를 학습할지 정하는 방법. concat과 interleave_*는 LLaMA-Factory의 것입니다."),
        "ja": (
            "戦略",
            "次にどのデータを学習するかを決める方法。concat と interleave_* は LLaMA-Factory 自身のものです。",
        ),
    },
    "dids_tasks": {
        "en": ("Tasks", "Datasets of what the model should get better at; they are measured, not trained on."),
        "ru": ("Задачи", "Наборы данных того, что модель должна улучшить; на них измеряют, но не обучают."),
        "zh": ("目标任务", "希望模型提升的任务的数据集；只用于测量，不参与训练。"),
        "ko": ("태스크", "모델이 더 잘해야 하는 일의 데이터셋. 측정에만 쓰이고 학습하지 않습니다."),
        "ja": ("タスク", "モデルに上達させたい課題のデータセット。測定だけに使い、学習はしません。"),
    },
    "dids_task_samples": {
        "en": ("Samples per task", "How many samples of each task are measured at an update."),
        "ru": ("Примеров на задачу", "Сколько примеров каждой задачи измеряется при обновлении."),
        "zh": ("每个任务的样本数", "每次更新时测量每个任务的多少个样本。"),
        "ko": ("태스크당 샘플 수", "갱신할 때마다 각 태스크에서 측정하는 샘플 수."),
        "ja": ("タスクごとのサンプル数", "更新のたびに各タスクで測定するサンプル数。"),
    },
    "dids_domains": {
        "en": (
            "Domains from",
            "cluster: k-means; source: each dataset; a run's or map's path. auto: source for a fixed mixture.",
        ),
        "ru": (
            "Откуда домены",
            "cluster: k-means; source: наборы данных; путь к запуску или карте. auto: source для постоянной смеси.",
        ),
        "zh": (
            "领域来源",
            "cluster：k-means 聚类；source：每个数据集；或运行、领域图的路径。auto：固定配比时为 source。",
        ),
        "ko": (
            "도메인 출처",
            "cluster: k-means, source: 데이터셋마다 하나, 또는 실행이나 맵의 경로. auto: 고정 혼합이면 source.",
        ),
        "ja": (
            "ドメインの由来",
            "cluster：k-means、source：データセットごと、または実行やマップのパス。auto：固定の混合比なら source。",
        ),
    },
    "dids_num_domains": {
        "en": ("Number of domains", "How many clusters are made in all. Empty: by the number of samples, 72 at most."),
        "ru": ("Число доменов", "Сколько всего создаётся кластеров. Пусто: по числу примеров, не более 72."),
        "zh": ("领域数量", "总共生成多少个聚类。留空则按样本数决定，最多 72 个。"),
        "ko": ("도메인 수", "모두 몇 개의 클러스터를 만들지. 비우면 샘플 수에 따라, 최대 72개."),
        "ja": ("ドメイン数", "全部でいくつのクラスタを作るか。空欄ならサンプル数に応じて、最大 72。"),
    },
    "dids_proxy_model": {
        "en": (
            "Proxy model",
            "A small model (path or hub name) that finds the domains, and is what proxy runs train. Empty: the model.",
        ),
        "ru": (
            "Прокси-модель",
            "Малая модель (путь или имя в хабе): находит домены, её обучают прокси-запуски. Пусто: сама модель.",
        ),
        "zh": ("代理模型", "用来划分领域、也是代理训练对象的小模型（路径或模型库名称）。留空则用被训练的模型。"),
        "ko": (
            "프록시 모델",
            "도메인을 찾고 프록시 실행이 학습하는 작은 모델(경로 또는 허브 이름). 비우면 학습 대상 모델.",
        ),
        "ja": (
            "プロキシモデル",
            "ドメインを見つけ、プロキシ実行が学習する小さなモデル（パスまたはハブ名）。空欄なら学習対象のモデル。",
        ),
    },
    "dids_update_samples": {
        "en": (
            "Samples between updates (τ)",
            "After so many training samples the mixture is decided anew. Empty: a 25th of the run.",
        ),
        "ru": (
            "Примеров между обновлениями (τ)",
            "Через столько примеров смесь решается заново. Пусто: 25-я часть запуска.",
        ),
        "zh": ("更新间隔样本数 (τ)", "每训练这么多样本，就重新决定一次数据配比。留空：总样本数的 1/25。"),
        "ko": ("갱신 간격 샘플 수 (τ)", "이만큼 학습할 때마다 혼합 비율을 새로 정합니다. 비우면 전체의 25분의 1."),
        "ja": ("更新間隔のサンプル数 (τ)", "この数だけ学習するたびに混合比を決め直します。空欄なら全体の 25 分の 1。"),
    },
    "dids_preset": {
        "en": (
            "Preset",
            "How the method is read where no field says otherwise; literal and authors are only for study.",
        ),
        "ru": ("Пресет", "Какое прочтение метода берётся для незаданного; literal и authors — для изучения."),
        "zh": ("预设", "未填写的选项采用方法的哪种解读；literal 和 authors 仅供研究。"),
        "ko": ("프리셋", "정하지 않은 항목에 쓰는 방법의 해석. literal과 authors는 연구용입니다."),
        "ja": ("プリセット", "未設定の項目に使う手法の解釈。literal と authors は研究用です。"),
    },
    "dids_ema_beta": {
        "en": ("Smoothing (β)", "Weight of the old probabilities in the new ones, from 0 to 1. Empty: the preset's."),
        "ru": ("Сглаживание (β)", "Вес старых вероятностей в новых, от 0 до 1. Пусто: из пресета."),
        "zh": ("平滑系数 (β)", "旧概率在新概率中的权重，0 到 1。留空则用预设值。"),
        "ko": ("평활 계수 (β)", "새 확률에서 이전 확률의 비중, 0에서 1. 비우면 프리셋 값."),
        "ja": ("平滑化 (β)", "新しい確率に占める古い確率の重み、0 から 1。空欄ならプリセットの値。"),
    },
    "dids_proxy_share": {
        "en": ("Length of proxy runs", "Share of the run's samples that a proxy run trains on. Empty: the strategy's."),
        "ru": ("Длина прокси-запуска", "Доля примеров запуска для прокси-запуска. Пусто: как принято у стратегии."),
        "zh": ("代理训练长度", "代理训练使用主训练样本的比例。留空则用该策略的默认值。"),
        "ko": ("프록시 실행 길이", "프록시 실행이 학습하는 샘플의 비율. 비우면 전략의 기본값."),
        "ja": ("プロキシ実行の長さ", "プロキシ実行で学習するサンプルの割合。空欄なら戦略の既定値。"),
    },
    "dids_probs": {
        "en": ("Mixture", "math=0.6, code=0.4 (the rest by size), or a number for each, or a mixture.jsonl's path."),
        "ru": ("Смесь", "math=0.6, code=0.4 (остальное по размеру), или число для каждого, или путь к mixture.jsonl."),
        "zh": ("配比", "math=0.6, code=0.4（其余按规模）；或每个一个数；或某个 mixture.jsonl 的路径。"),
        "ko": ("혼합 비율", "math=0.6, code=0.4(나머지는 크기대로), 또는 각각의 숫자, 또는 mixture.jsonl의 경로."),
        "ja": ("混合比", "math=0.6, code=0.4（残りはサイズに比例）、各々の数値、または mixture.jsonl のパス。"),
    },
    "dids_schedule": {
        "en": ("Schedule", "Mixtures at points of the run, on lines between them: 0: web=0.8, math=0.2; 1: math=1"),
        "ru": ("Расписание", "Смеси в точках запуска, между ними по прямой: 0: web=0.8, math=0.2; 1: math=1"),
        "zh": ("日程", "训练各时点的配比，其间线性变化：0: web=0.8, math=0.2; 1: math=1"),
        "ko": ("일정", "실행 시점별 혼합 비율, 그 사이는 직선으로: 0: web=0.8, math=0.2; 1: math=1"),
        "ja": ("スケジュール", "実行の各時点での混合比、その間は直線で：0: web=0.8, math=0.2; 1: math=1"),
    },
    "dids_share_of": {
        "en": ("Shares of", "What a share is of: the training samples, or all of their tokens."),
        "ru": ("Доли от", "От чего считаются доли: от обучающих примеров (samples) или от всех их токенов (tokens)."),
        "zh": ("占比单位", "占比按什么计算：samples 为训练样本数，tokens 为词元（token）总数。"),
        "ko": ("비율의 단위", "비율을 무엇으로 셀지. samples: 학습 샘플 수, tokens: 전체 토큰 수."),
        "ja": ("割合の単位", "割合を何で数えるか。samples：学習サンプル数、tokens：全トークン数。"),
    },
    "dids_trajectory": {
        "en": ("Loss trajectory", "Off: all tasks weigh alike, whatever is left to learn (ablation DIDS-LT)."),
        "ru": ("Траектория потерь", "Выкл.: все задачи равны, сколько бы ни осталось выучить (абляция DIDS-LT)."),
        "zh": ("损失轨迹", "关闭：所有任务权重相同，不看还能学多少（消融 DIDS-LT）。"),
        "ko": ("손실 궤적", "끄면 남은 학습량과 상관없이 모든 태스크의 비중이 같습니다(절제 DIDS-LT)."),
        "ja": ("損失の軌跡", "オフ：残りの学習余地によらず全タスクを同じ重みにします（アブレーション DIDS-LT）。"),
    },
    "dids_impact": {
        "en": ("Impact", "How a domain's effect on a task is measured; gradient: without Fisher (ablation DIDS-FIM)."),
        "ru": ("Влияние", "Как измеряется влияние домена на задачу; gradient: без Фишера (абляция DIDS-FIM)."),
        "zh": ("影响度量", "如何衡量领域对任务的影响；gradient：不用 Fisher 矩阵（消融 DIDS-FIM）。"),
        "ko": ("영향 척도", "도메인이 태스크에 주는 영향을 재는 방법. gradient: Fisher 없이(절제 DIDS-FIM)."),
        "ja": (
            "影響の尺度",
            "ドメインがタスクに与える影響の測り方。gradient：Fisher なし（アブレーション DIDS-FIM）。",
        ),
    },
    "dids_cluster_features": {
        "en": ("Cluster by", "gradient: the proxy's gradients; semantic: sentence embeddings (ablation DIDS-GC)."),
        "ru": ("Кластеризовать по", "gradient: градиенты прокси; semantic: эмбеддинги текста (абляция DIDS-GC)."),
        "zh": ("聚类依据", "gradient：代理模型的梯度；semantic：句向量（消融 DIDS-GC）。"),
        "ko": ("클러스터 기준", "gradient: 프록시의 그래디언트, semantic: 문장 임베딩(절제 DIDS-GC)."),
        "ja": ("クラスタの基準", "gradient：プロキシの勾配、semantic：文埋め込み（アブレーション DIDS-GC）。"),
    },
    "dids_runs": {
        "en": ("Runs", "Two or more folders of finished runs."),
        "ru": ("Запуски", "Две или больше папок завершённых запусков."),
        "zh": ("运行", "两个或更多已完成运行的文件夹。"),
        "ko": ("실행", "끝난 실행의 폴더 두 개 이상."),
        "ja": ("実行", "終わった実行のフォルダを二つ以上。"),
    },
    "dids_map": {
        "en": ("Run or domain map", "A folder: the run above, or another one."),
        "ru": ("Запуск или карта доменов", "Папка: запуск выше или любой другой."),
        "zh": ("运行或领域图", "文件夹：上面的运行，或其他运行。"),
        "ko": ("실행 또는 도메인 맵", "폴더: 위의 실행 또는 다른 실행."),
        "ja": ("実行またはドメインマップ", "フォルダ：上の実行、または別の実行。"),
    },
}

LABELS: dict[str, dict[str, str]] = {
    "dids_tab": {
        "en": "Data mixing configurations",
        "ru": "Конфигурации смешивания данных",
        "zh": "数据混合参数设置",
        "ko": "데이터 혼합 구성",
        "ja": "データ混合設定",
    },
    "dids_method_tab": {
        "en": "Details of the method",
        "ru": "Подробности метода",
        "zh": "方法细节与消融",
        "ko": "방법의 세부 설정",
        "ja": "手法の詳細",
    },
    "dids_report_tab": {"en": "Report", "ru": "Отчёт", "zh": "报告", "ko": "보고서", "ja": "レポート"},
    "dids_domains_tab": {"en": "Domains", "ru": "Домены", "zh": "领域", "ko": "도메인", "ja": "ドメイン"},
    "dids_compare_tab": {
        "en": "Did it help? Compare runs",
        "ru": "Помогло ли? Сравнить запуски",
        "zh": "有效吗？比较运行",
        "ko": "효과가 있었나? 실행 비교",
        "ja": "効果はあったか？実行の比較",
    },
    "dids_files": {"en": "Files", "ru": "Файлы", "zh": "下载文件", "ko": "파일", "ja": "ファイル"},
}

BUTTONS = {
    "dids_show": {"en": "Show", "ru": "Показать", "zh": "显示", "ko": "보기", "ja": "表示"},
    "dids_compare": {"en": "Compare", "ru": "Сравнить", "zh": "比较", "ko": "비교", "ja": "比較"},
    "dids_baseline": {
        "en": "Train the baseline (same arguments, proportional)",
        "ru": "Обучить базовый запуск (те же аргументы, proportional)",
        "zh": "训练基线（相同参数，proportional）",
        "ko": "기준선 학습(같은 인수, proportional)",
        "ja": "ベースラインを学習（同じ引数、proportional）",
    },
}


def locales() -> dict[str, dict[str, dict[str, Any]]]:
    """Each component's texts in each language, in the form of the host's `LOCALES`."""
    fields = {
        name: {lang: {"label": label, "info": text} for lang, (label, text) in texts.items()}
        for name, texts in FIELD_TEXTS.items()
    }
    for place, lang in enumerate(LANGUAGES):
        fields["mix_strategy"][lang]["choices"] = choices(place)
    labels = {name: {lang: {"label": label} for lang, label in texts.items()} for name, texts in LABELS.items()}
    buttons = {name: {lang: {"value": label} for lang, label in texts.items()} for name, texts in BUTTONS.items()}
    return fields | labels | buttons


def say(phrase: str, lang: str) -> str:
    """A phrase in one of LANGUAGES; English until a language is chosen."""
    return PHRASES[phrase][LANGUAGES.index(lang) if lang in LANGUAGES else 0]
