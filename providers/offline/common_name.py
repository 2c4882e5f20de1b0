"""Common names of callers, so that a name can be told from a sentence that was misheard.

Data only: the most frequent first and last names of the United States' census and of Britain, the most frequent first;
what is also an everyday word is in WORDS and proves nothing. What a weekday is misheard as is left out (Wendy, Mindy).
"""

from __future__ import annotations

FIRST_NAMES = tuple(
    """
    michael david james jennifer john christopher robert matthew jessica william susan paul sarah rebecca thomas
    linda julie mark claire laura stephen lauren andrew christine jack karen nicola daniel gemma lisa peter joseph
    richard margaret jacqueline emma ryan charlotte joshua janet alan deborah ian hannah simon luke patricia
    samuel tracey jordan joanne anthony sophie adam carol lee jane alexander michelle victoria kevin amy darren
    elizabeth benjamin helen philip samantha gary emily mary brian diane steven rachel anne liam keith sharon
    martin ann jason tracy kimberly jonathan amanda jake chloe graham nicholas angela craig louise george katie
    melissa colin lucy ashley neil barbara alison lewis sandra nigel caroline oliver timothy clare kelly stuart
    kenneth bethany raymond gillian jamie natalie nathan jade geoffrey pauline stephanie connor megan elaine
    terence trevor alice adrian lesley harry catherine hayley malcolm scott pamela danielle callum wayne holly
    aaron barry abigail valerie jeffrey bradley olivia patrick jean eric dawn gareth jacob donna sean kieran
    leanne derek kathleen carl natasha dean denise charles sally nicole katherine sam shaun georgia heather
    maureen ben roger maria zoe mohammed leslie judith ronald kerry kyle debra melanie clive justin edward stacey
    antony eleanor jeremy paula shannon sheila christian joanna brandon roy paige karl janice alex lorraine gordon
    georgina dominic lynn joe andrea marc suzanne christina reece dennis yvonne russell chelsea gavin lynne anna
    rhys phillip kirsty shirley allan robin alexandra charlie marion gerald beverley gregory cynthia ross francis
    rosemary kimberley brittany julian carole bernard fiona dale kate amber donald joan marie damian frank jenna
    tiffany shane marilyn tammy cameron jodie norman june crystal grace duncan louis frederick rachael lori
    tyler tony lynda zachary howard tina brenda kathryn conor sara douglas molly garry jayne erin elliot jose
    marcus marian arthur jasmine teresa vincent nancy max courtney mathew kayleigh abdul kayla henry harriet bryan
    april julia martyn shawn ricky ashleigh kristen erica monica leonard lawrence kim cheryl todd glen ruth travis
    taylor mitchell jemma jesse chad carly gerard austin vanessa alicia allison leah diana larry eileen iain
    kristin cody michele billy francesca theresa alexis naomi dana cindy joel hilary jill alyssa juan clifford
    abbie tara jerry stacy dustin sylvia josh randy veronica leon katy carrie rhonda terry stewart irene gina
    mohammad kathy troy carlos carolyn lindsey dylan rosie jeffery renee brianna jared dorothy graeme morgan
    cassandra corey kelsey sherry luis aimee brooke tonya antonio victor kristina guy brett beth heidi laurie
    elliott ellie lindsay rodney brandy curtis tamara johnny erika stanley frances melinda brandi deanna tanya
    madison erik danny sian derrick carla regina sabrina gabriel brent nathaniel bruce josephine debbie colleen
    terri connie cory caitlin gail wesley felicia whitney allen bobby toby jesus randall jimmy marissa shelby evan
    brittney katrina misty jon haley kara lydia hugh seth walter virginia annette caleb meghan kaitlyn katelyn
    casey joyce mohamed miranda christy miguel cathy jay steve kendra andre chris anita willie bonnie shelly wanda
    manuel logan charlene albert devin martha sherri micheal monique jeff krista jodi krystal mario mike sydney
    darrell blake yolanda jeremiah hollie ricardo jorge calvin angel gloria ethan audrey garrett edwin glenn
    angelica judy tom hazel lucas kristy gabrielle francisco destiny lance hunter kristi isaac nichole desiree
    beverly declan jillian brad savannah kristine mariah chase alexandria noah becky claudia sierra darlene
    reginald oscar briana jenny kelli harold shelley autumn joy sonya sheri spencer roberto ronnie carmen toni
    vicki maurice bethan breanna alejandro traci rebekah ana jaime dominique johnathan betty ralph penny evelyn
    peggy madeline hector dakota eddie kari bridget eugene tommy ruben amelia jeanette meredith mackenzie ellen
    ernest jody brendan marvin meagan rita kurt dwayne tim jonathon rose cheyenne ashlee vickie bailey mallory
    grant kaitlin darryl alexa hailey clayton leigh candice latoya tanner omar jerome isaiah javier bianca greg
    adrienne melvin duane ariel
""".split()
)
LAST_NAMES = tuple(
    """
    smith jones williams taylor brown davies evans wilson thomas roberts johnson lewis walker robinson wood
    thompson white watson jackson wright green harris cooper king lee martin clarke james morgan hughes edwards
    hill moore clark harrison scott young morris hall ward turner carter phillips mitchell patel adams campbell
    anderson allen cook bailey parker miller davis murphy price bell baker griffiths kelly simpson marshall
    collins bennett cox richardson fox gray rose chapman hunt robertson shaw reynolds lloyd ellis richards russell
    wilkinson khan graham stewart reid murray powell palmer holmes rogers stevens walsh hunter thomson matthews
    ross owen mason knight kennedy butler saunders cole pearce dean foster harvey hudson gibson mills berry barnes
    pearson kaur booth dixon grant gordon lane harper ali hart mcdonald brooks garcia ryan carr macdonald hamilton
    johnston rodriguez west gill dawson martinez armstrong gardner stone andrews williamson barker hernandez
    george fisher cunningham watts webb lawrence bradley jenkins lopez wells chambers gonzalez spencer poole
    atkinson lawson day woods rees fraser black fletcher perez hussain willis marsh ahmed sanchez doyle lowe burns
    nelson hopkins nicholson ramirez parry newman jordan henderson howard barrett torres burton flores nguyen
    riley rivera porter byrne peterson houghton reed gomez john diaz perry baxter reyes cruz ball myers long
    sanders mccarthy morales sullivan ortiz gutierrez coleman elliott simmons patterson burke kim gonzales
    alexander ramos wallace griffin hayes gallagher chavez bryant ford owens ruiz duncan alvarez mendoza castillo
    cooke olson washington tucker freeman henry vasquez snyder crawford jimenez wagner romero hicks austin meyer
    boyd warren rice moreno schmidt read ferguson nichols herrera medina fernandez weaver daniels stephens payne
    kelley dunn pierce arnold tran peters hawkins hansen castro hoffman carroll ray carpenter perkins aguilar
    silva garza vargas watkins wheeler larson carlson greene guzman morrison munoz jacobs obrien franklin lynch
    bishop salazar mendez gilbert jensen montgomery oliver howell hanson weber garrett sims fuller soto mccoy
    welch chen schultz walters fields little fowler bowman davidson may schneider brewer lucas holland wong banks
    santos curtis delgado valdez francis pena rios douglas sandoval keller guerrero stanley bates alvarado beck
    ortega wade estrada contreras barnett caldwell santiago lambert powers nunez craig leonard rhodes byrd gregory
    shelton frazier becker maldonado fleming vega sutton cohen jennings parks mcdaniel norris vaughn vazquez holt
    schwartz steele benson neal dominguez horton terry wolfe hale lyons graves haynes miles park warner padilla
    bush thornton mann zimmerman erickson mckinney page joseph marquez reeves klein espinoza baldwin moran love
    robbins higgins cortez le griffith bowen sharp cummings ramsey hardy swanson barber acosta luna chandler
    daniel blair cross simon dennis oconnor quinn gross navarro moss fitzgerald mclaughlin rojas rodgers stevenson
    singh yang figueroa harmon newton paul manning garner mcgee reese burgess adkins goodman curry brady
    christensen potter walton goodwin mullins molina webster fischer campos avila sherman todd chang blake malone
    wolf hodges juarez farmer hines duran hubbard cannon miranda wang tate mack hammond carrillo townsend wise
    ingram barton mejia ayala schroeder hampton rowe parsons frank waters strickland osborne maxwell chan deleon
    norman harrington casey patton logan bowers mueller glover floyd hartman buchanan cobb french kramer mccormick
    tyler gibbs moody conner sparks mcguire leon bauer norton pope flynn hogan robles salinas yates lindsey
    mcbride solis pham lang pratt lara brock ballard trujillo shaffer drake roman aguirre morton stokes lamb
    pacheco patrick cochran shepherd cain burnett hess li cervantes olsen briggs ochoa cabrera velasquez montoya
    roth meyers cardenas fuentes weiss wilkins hoover underwood short carson morrow colon holloway summers bryan
    petersen mckenzie serrano wilcox carey clayton calderon gallegos greer rivas guerra decker collier wall
    whitaker bass flowers davenport conley houston huff copeland hood monroe massey roberson combs franco larsen
    pittman randall skinner kirby cameron bridges anthony richard kirk bruce singleton mathis bradford boone
    abbott charles allison sweeney horn jefferson rosales york christian phelps farrell castaneda nash dickerson
    bond wyatt foley chase gates vincent mathews hodge garrison trevino villarreal heath dalton valencia callahan
    hensley atkins huffman roy boyer shields lin hancock grimes glenn cline delacruz camacho dillon parrish oneill
    melton kane berg harrell pitts savage wiggins brennan salas marks russo sawyer golden hutchinson liu walter
    mcdowell wiley rich humphrey johns koch suarez hobbs beard gilmore ibarra keith macias andrade ware stephenson
    henson wilkerson dyer mcclure blackwell mercado tanner eaton clay barron beasley oneal small preston wu zamora
    vance snow mcclain stafford orozco barry english shannon kline jacobson woodard huang kemp mosley prince
    merritt hurst villanueva roach nolan lam yoder mccullough lester santana valenzuela winters barrera orr leach
    berger mckee strong conway stein whitehead bullock escobar knox meadows solomon velez odonnell kerr stout
    blankenship browning kent lozano bartlett pruitt buck barr gaines durham gentry mcintyre sloan rocha melendez
    herman sexton moon hendricks rangel stark lowery hardin hull sellers ellison calhoun gillespie mora knapp
    mccall morse dorsey weeks nielsen livingston leblanc mclean bradshaw glass middleton buckley schaefer frost
    howe house mcintosh ho pennington reilly hebert mcfarland hickman noble spears conrad arias galvan velazquez
    huynh frederick randolph cantu fitzpatrick mahoney peck villa michael donovan mcconnell walls boyle mayer
    zuniga
""".split()
)
WORDS = frozenset(
    """
    amber april ball banks bell black bond booth brooks brown burns bush carr casey chan chase christian clay cook
    cross crystal dale dawn day destiny english fields fisher flowers fox frank french frost gates glass golden
    grace grant gray green gross guy hall hardy hicks hill holly hood horn house hunt joy june king lamb lane
    little long love mark marsh max may mccoy miles mills misty moody moon moss noble page park parks penny pope
    porter potter powers price prince ray read rice rich roman rose savage sharp short small snow sparks stark
    steele stone strong summers wall walls ward waters weeks wells west white wise wolf wood woods young
""".split()
)
